"""The script of a served page: asks for news, and puts into the page what changed and nothing else.

The drawing is the report's own (`equipoise.report.script`), which takes new charts by an event. What the reader did
stays: parts that the server sent unchanged are not touched (open details, switched-off runs, focus, what other scripts
made of them), a figure keeps its element, and a zoomed axis its range. Of three states, the server's last, the
server's new and the page's own, the difference of the first two is applied to the third.
"""

from __future__ import annotations

from equipoise.report.browse_script import BROWSE

SECONDS, SECONDS_WHEN_FINISHED = 3, 30
"""Between two questions."""

BANNER = """<style>
#live { margin: .9rem 0 0; color: var(--ink); overflow-wrap: anywhere; }
#live span { color: var(--quiet); margin-left: .6em; }
#live b::before { content: ''; display: inline-block; width: .6em; height: .6em; margin-right: .45em;
  border-radius: 50%; background: var(--unknown); }
#live[data-state=running] b::before { background: var(--good); }
#live[data-state=lost] b::before { background: var(--poor); }
@media print { #live { display: none; } }
</style>
<link rel="icon" href="data:,">
<p id="live"><b role="status"></b><span></span></p>
"""
"""Under the page's heading. Its state is read out when it changes; how far the run is, is not."""

SCRIPT = """
(() => {
  const [often, seldom] = [SECONDS * 1000, FINISHED * 1000];
  const main = document.querySelector('main');
  const banner = document.getElementById('live');
  const [state, detail] = banner.children;
  let known = JSON.parse(document.getElementById('update').textContent);
  let [before, charts] = [main.cloneNode(true), JSON.parse(document.getElementById('charts').textContent)];
  let [age, heard, timer] = [known.age, Date.now(), 0];
  const ranges = new Map();  // all that the server ever gave an axis: those are no reader's zoom
  const words = {waiting: 'Waiting', running: 'Live', finished: 'Finished', lost: 'No longer live'};

  function key(node) {
    if (node.id) return node.id;
    if (node.nodeName === 'SECTION') return node.getAttribute('aria-labelledby');
    if (node.nodeName === 'FIGURE') return (node.querySelector('.plot') || {}).id;
    return ['LABEL', 'DETAILS'].includes(node.nodeName) ? node.nodeName + node.textContent.split('\\n')[0] : '';
  }
  const purge = node => {
    if (node.querySelectorAll) node.querySelectorAll('.plot').forEach(plot => Plotly.purge(plot));
  };

  function morph(live, old, fresh) {
    if (old.isEqualNode(fresh)) return;
    const whole = node => node.querySelector && node.querySelector(':scope > .controls');
    if (old.nodeName !== fresh.nodeName || old.id !== fresh.id || whole(old) || whole(fresh)) {
      if (whole(fresh)) again.push(asked(live));
      purge(live);
      live.replaceWith(fresh);
      return;
    }
    if (!fresh.attributes) {
      live.data = fresh.data;
      return;
    }
    for (const name of new Set([...old.getAttributeNames(), ...fresh.getAttributeNames()])) {
      if (old.getAttribute(name) === fresh.getAttribute(name)) continue;
      if (fresh.hasAttribute(name)) live.setAttribute(name, fresh.getAttribute(name));
      else live.removeAttribute(name);
    }
    const [lives, olds, freshes] = [live, old, fresh].map(node => [...node.childNodes]);
    if (!olds.length && !freshes.length) return;  // a figure: its inside is the drawing's
    if (lives.length !== olds.length) {  // another script changed it
      purge(live);
      live.replaceChildren(...freshes);
      return;
    }
    const pairs = olds.map((node, place) => ({live: lives[place], old: node, key: key(node)}));
    const alike = (pair, node, name) => name ? pair.key === name : !pair.key && pair.old.nodeName === node.nodeName;
    let place = live.firstChild;
    for (const node of freshes) {
      const name = key(node);
      const found = pairs.findIndex(pair => alike(pair, node, name));
      if (found < 0) {
        live.insertBefore(node, place);
        continue;
      }
      const [pair] = pairs.splice(found, 1);
      if (pair.live === place) place = place.nextSibling;
      else live.insertBefore(pair.live, place);
      morph(pair.live, pair.old, node);
    }
    pairs.forEach(pair => { purge(pair.live); pair.live.remove(); });
  }

  // Predictions are sorted and searched by a script of their own, which begins anew where they changed.
  const again = [];
  function asked(part) {
    const [find, task, order] = ['input', 'select', '[aria-pressed=true]'].map(name => part.querySelector(name));
    return {find: find && find.value, task: task && task.value, order: order && order.dataset.order,
            focus: Boolean(find) && document.activeElement === find};
  }
  function browse(was) {
    BROWSE
    const controls = document.querySelector('.controls');
    const [find, task] = ['input', 'select'].map(name => controls.querySelector(name));
    const order = controls.querySelector(`[data-order="${was.order || 'worst'}"]`);
    if (was.find) find.value = was.find;
    if (task && was.task) task.value = was.task;
    if (order) order.click();  // shows all of it
    if (was.focus) find.focus();
  }

  // The server fits axes to what there is; an axis that the reader zoomed keeps his range.
  function keepZoom(chart) {
    const drawn = (document.getElementById(chart.id) || {}).layout;
    for (const axis of Object.keys(chart.layout).filter(name => /^[xy]axis/.test(name))) {
      const given = chart.layout[axis].range;
      const name = `${chart.id} ${axis}`;
      if (!ranges.has(name)) ranges.set(name, new Set());
      const now = drawn && drawn[axis];
      if (now && now.range) {
        const zoomed = given ? now.autorange !== true && !ranges.get(name).has(String(now.range))
                             : now.autorange === false;
        if (zoomed) chart.layout[axis] = {...chart.layout[axis], range: [...now.range], autorange: false};
      }
      if (given) ranges.get(name).add(String(given));
    }
  }

  function apply(update) {
    const fresh = document.createElement('main');
    fresh.innerHTML = update.main;
    document.title = update.title;
    document.querySelector('h1').textContent = update.heading;
    document.querySelector('header p').textContent = update.subtitle;
    morph(main, before, fresh.cloneNode(true));
    before = fresh;
    again.splice(0).forEach(browse);
    charts = update.charts;
    charts.forEach(keepZoom);
    document.dispatchEvent(new CustomEvent('equipoise:charts', {detail: charts}));
    known = {etag: update.etag, state: update.state, progress: update.progress};
  }

  const ago = seconds => seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min`
    : seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
  function say(lost) {
    const name = lost ? 'lost' : known.state;
    banner.dataset.state = name;
    if (state.textContent !== words[name]) state.textContent = words[name];  // read out when it changes, not each time
    const parts = [lost ? 'the server does not answer; this is the last state' : '', known.progress];
    if (!lost && age !== null && known.state !== 'waiting') {
      parts.push(`last written ${ago(age + (Date.now() - heard) / 1000)} ago`);
    }
    detail.textContent = parts.filter(Boolean).join(' · ');
  }

  async function ask() {
    clearTimeout(timer);
    let lost = false;
    try {
      const answer = await fetch('/update', {headers: {'If-None-Match': `"${known.etag}"`}, cache: 'no-store'});
      const written = answer.headers.get('X-Age');
      [age, heard] = [written === null ? null : Number(written), Date.now()];
      if (answer.status === 200) apply(await answer.json());
      else if (answer.status !== 304) lost = true;
    } catch (error) {
      if (!(error instanceof TypeError)) console.error(error);  // fetch's own when nobody answers
      lost = true;
    }
    say(lost);
    timer = setTimeout(ask, document.hidden || lost || known.state === 'finished' ? seldom : often);
  }
  charts.forEach(keepZoom);
  say(false);
  timer = setTimeout(ask, often);
  document.addEventListener('visibilitychange', () => { if (!document.hidden) ask(); });
})();
"""
for _name, _value in {"SECONDS": SECONDS, "FINISHED": SECONDS_WHEN_FINISHED, "BROWSE": BROWSE}.items():
    SCRIPT = SCRIPT.replace(_name, str(_value).strip())
