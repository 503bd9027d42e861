"""The script beside the predictions: sorts a task's cards, searches them, and shows a few of them at a time."""

from __future__ import annotations

BROWSE = """
(() => {
  const controls = document.querySelector('.controls');
  if (!controls) return;
  const [few, more] = [6, 12];
  const buttons = [...controls.querySelectorAll('[data-order]')];
  const [task, find, status] = ['select', 'input', 'output'].map(name => controls.querySelector(name));
  const words = new Map();  // of each card, in lower case, once they are asked for
  let order = 'worst';

  const groups = [...document.querySelectorAll('.task')].map(box => {
    const list = box.querySelector('ol');
    const button = Object.assign(document.createElement('button'), {type: 'button', className: 'more'});
    box.append(button);
    return {box, list, button, cards: [...list.children], most: few};
  });
  const value = (card, name) => name in card.dataset ? Number(card.dataset[name]) : -Infinity;
  const by = {
    worst: (a, b) => value(a, 'rank') - value(b, 'rank'),
    best: (a, b) => value(b, 'score') - value(a, 'score') || by.worst(a, b),
    unlike: (a, b) => value(b, 'spread') - value(a, 'spread') || by.worst(a, b),
  };
  const has = (card, wanted) => {
    if (!words.has(card)) words.set(card, card.querySelector('.words').textContent.toLowerCase());
    return words.get(card).includes(wanted);
  };

  function show() {
    const wanted = find.value.trim().toLowerCase();
    let shown = 0, all = 0;
    for (const group of groups) {
      const {box, list, button, cards} = group;
      box.hidden = Boolean(task && task.value && task.value !== box.dataset.task);
      list.append(...cards.sort(by[order]));
      const found = cards.filter(card => !wanted || has(card, wanted));
      cards.forEach(card => { card.hidden = true; });
      found.slice(0, group.most).forEach(card => { card.hidden = false; });
      const left = found.length - group.most;
      button.hidden = left <= 0;
      button.textContent = `Show ${Math.min(more, left)} more of ${left}`;
      if (!box.hidden) [shown, all] = [shown + Math.min(found.length, group.most), all + found.length];
    }
    status.textContent = all ? `${shown} of ${all} shown` : 'nothing found';
  }
  function afresh() {
    groups.forEach(group => { group.most = few; });
    show();
  }

  buttons.forEach(button => button.addEventListener('click', () => {
    order = button.dataset.order;
    buttons.forEach(other => other.setAttribute('aria-pressed', String(other === button)));
    afresh();
  }));
  if (task) task.addEventListener('change', afresh);
  find.addEventListener('input', afresh);
  groups.forEach(group => group.button.addEventListener('click', () => {
    const before = group.most;
    group.most += more;
    show();
    // The button may be gone; who came by keyboard goes on at the first card that is new.
    const fresh = [...group.list.children].filter(card => !card.hidden)[before];
    if (fresh) { fresh.tabIndex = -1; fresh.focus(); }
  }));
  controls.hidden = false;
  show();
})();
"""
