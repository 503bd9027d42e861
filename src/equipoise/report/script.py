"""The report's own script: draws the figures in the reader's colours and switches runs on and off in all of them.

The page works without it but for the figures. A trace's `meta` says how it is painted: `colour`, the number of a
series, or a list of them for bars; `paint`, a colour of the style sheet by name; `scale: diverging`, from harm's colour
over the panel's to help's. Its `run` hides it. `charts` is a JSON list inside the page, `Plotly`
the inlined library; nothing is fetched, and plotly's button that would send a figure to its makers' cloud is off.

What belongs to one run elsewhere in the page says so by `data-run` and goes with it. A page that is served while its
run goes on hands new charts over by the event `equipoise:charts` (`equipoise.watching.script`).
"""

from __future__ import annotations

from equipoise.report.browse_script import BROWSE

FIGURES = """
(() => {
  let charts = JSON.parse(document.getElementById('charts').textContent);
  const root = document.documentElement;
  const hidden = new Set();
  const config = {responsive: true, displaylogo: false,
                  showSendToCloud: false, plotlyServerURL: '',
                  modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d']};

  function draw(chart, width) {
    const style = getComputedStyle(root);
    const css = name => style.getPropertyValue('--' + name).trim();
    const count = Number(root.dataset.series);
    const series = number => css('series-' + number % count);
    const data = chart.data.map(trace => {
      const meta = trace.meta || {};
      const own = {...trace, visible: !hidden.has(meta.run)};
      if (meta.scale === 'diverging') {
        own.colorscale = [[0, css('harm')], [0.5, css('panel')], [1, css('help')]];
        own.textfont = {...trace.textfont, color: css('ink')};
      }
      if (meta.colour === undefined) {
        if (meta.paint) own.line = {...trace.line, color: css(meta.paint)};
        return own;
      }
      const colour = Array.isArray(meta.colour) ? meta.colour.map(series) : series(meta.colour);
      own.marker = {...trace.marker, color: colour};
      if (!Array.isArray(meta.colour)) own.line = {...trace.line, color: colour};
      return own;
    });
    const layout = {...chart.layout, paper_bgcolor: css('page'), plot_bgcolor: css('page'), width,
      font: {...chart.layout.font, color: css('ink')},
      hoverlabel: {bgcolor: css('panel'), bordercolor: css('rule'), font: {color: css('ink')}},
      modebar: {...chart.layout.modebar, bgcolor: 'rgba(0,0,0,0)', color: css('line'), activecolor: css('ink')},
      shapes: (chart.layout.shapes || []).map(shape =>
        shape.type === 'line' ? {...shape, line: {...shape.line, color: css('line')}} : shape)};
    for (const key of Object.keys(layout).filter(key => /^[xy]axis/.test(key))) {
      layout[key] = {...layout[key], gridcolor: css('grid'), linecolor: css('rule'), tickcolor: css('rule')};
    }
    if (layout.polar) {
      const axis = {gridcolor: css('grid'), linecolor: css('rule'), tickcolor: css('rule')};
      const {angularaxis, radialaxis} = layout.polar;
      layout.polar = {...layout.polar, bgcolor: css('page'), angularaxis: {...angularaxis, ...axis},
                      radialaxis: {...radialaxis, ...axis}};
    }
    return Plotly.react(chart.id, data, layout, config);
  }
  const drawAll = width => charts.forEach(chart => draw(chart, width));

  drawAll();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => drawAll());
  // Paper is white, and narrower than the window.
  addEventListener('beforeprint', () => { root.classList.add('on-paper'); drawAll(680); });
  addEventListener('afterprint', () => {
    root.classList.remove('on-paper');
    charts.forEach(chart => Plotly.purge(chart.id));  // else a figure keeps the width that it once was given
    drawAll();
  });
  function toggle() {
    document.querySelectorAll('.legend input').forEach(box => {
      hidden[box.checked ? 'delete' : 'add'](Number(box.value));
      document.querySelectorAll(`[data-run="${box.value}"]`).forEach(part => { part.hidden = !box.checked; });
    });
    drawAll();
  }
  document.addEventListener('change', event => { if (event.target.closest('.legend')) toggle(); });
  document.addEventListener('equipoise:charts', event => { charts = event.detail; toggle(); });
})();
"""

JAVASCRIPT = BROWSE + FIGURES
