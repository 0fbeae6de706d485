// What a page of the console does where JavaScript is on: it counts on, and shows
// what is new. Every page works without it.
(function () {
  'use strict';
  var skew = Number(document.body.dataset.now) - Date.now();
  var live = document.getElementById('live');

  // distance says how far a moment is from now, as words.go does.
  function distance(ms) {
    var s = Math.round(ms / 1000);
    if (s === 0) return 'now';
    var left = Math.abs(s), text = [], said = 0;
    [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']].forEach(function (u) {
      var n = Math.floor(left / u[0]);
      left -= n * u[0];
      if (said === 2 || (n === 0 && said === 0)) return;
      if (n > 0) text.push(n + ' ' + u[1]);
      said++;
    });
    return s > 0 ? 'in ' + text.join(' ') : text.join(' ') + ' ago';
  }
  // local gives each moment the reader's own time, which shows on hover.
  function local() {
    document.querySelectorAll('time[datetime], [data-at]').forEach(function (el) {
      el.title = new Date(el.dateTime || Number(el.dataset.at)).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'long' });
    });
  }
  function count() {
    var now = Date.now() + skew;
    document.querySelectorAll('[data-at]').forEach(function (el) {
      var left = Number(el.dataset.at) - now;
      if (el.closest('.countdown')) left = Math.max(left, 0); // what comes next is due, not past
      var words = distance(left);
      if (el.textContent !== words) el.textContent = words;
    });
  }
  local();
  count();
  setInterval(count, 1000);

  var result = document.getElementById('result');
  if (result) {
    result.focus({ preventScroll: false });
    // A reload or a bookmark of this page tells what was done no more.
    history.replaceState(null, '', location.pathname);
  }

  if (!document.body.dataset.live || !window.EventSource) return;

  var seen = document.body.dataset.stamp, busy = false, again = false, last = 0;
  function say(words, stale) {
    if (live.textContent === words) return;
    live.textContent = words;
    live.classList.toggle('stale', stale);
  }
  // writing: somebody fills a form in, which must not be taken away.
  function writing() {
    var el = document.activeElement;
    return el && el.closest && el.closest('main form') && /^(INPUT|SELECT|TEXTAREA)$/.test(el.tagName);
  }
  function replace(next) {
    var main = document.getElementById('main'), fresh = next.getElementById('main');
    if (!fresh) throw new Error('no page');
    var open = {}, typed = {}, focused = document.activeElement && document.activeElement.id;
    main.querySelectorAll('details[id]').forEach(function (d) { open[d.id] = d.open; });
    main.querySelectorAll('input[id], select[id]').forEach(function (i) { typed[i.id] = i.type === 'checkbox' ? i.checked : i.value; });
    fresh.querySelectorAll('details[id]').forEach(function (d) { if (d.id in open) d.open = open[d.id]; });
    fresh.querySelectorAll('input[id], select[id]').forEach(function (i) {
      if (!(i.id in typed)) return;
      if (i.type === 'checkbox') i.checked = typed[i.id]; else i.value = typed[i.id];
    });
    var kept = document.getElementById('result');
    main.replaceChildren.apply(main, Array.prototype.slice.call(document.adoptNode(fresh).childNodes));
    if (kept) main.prepend(kept);
    seen = next.body.dataset.stamp;
    skew = Number(next.body.dataset.now) - Date.now();
    document.querySelector('footer time').replaceWith(next.querySelector('footer time'));
    local();
    count();
    var el = focused && document.getElementById(focused);
    if (el && el !== document.activeElement) el.focus({ preventScroll: true });
  }
  // later puts off what is new until the form is left.
  function later() {
    again = true;
    say(', changed since: it shows when you leave the form', true);
  }
  function load() {
    if (busy) { again = true; return; }
    if (writing()) { later(); return; }
    busy = true; again = false;
    var wait = Math.max(0, last + 1000 - Date.now());
    setTimeout(function () {
      last = Date.now();
      fetch(location.href.split('#')[0], { credentials: 'same-origin', headers: { Accept: 'text/html' } }).then(function (r) {
        if (!r.ok) throw new Error(String(r.status));
        return r.text();
      }).then(function (text) {
        if (writing()) { later(); return; }
        replace(new DOMParser().parseFromString(text, 'text/html'));
        say(', live', false);
      }).catch(function () {
        say(', not live: the server does not answer', true);
      }).then(function () {
        busy = false;
        if (again) load();
      });
    }, wait);
  }
  document.addEventListener('focusout', function () {
    setTimeout(function () { if (again && !writing()) load(); }, 200);
  });

  // An indicator's value changes without anything being recorded. A form that somebody
  // fills in stays, without a word: nothing that was recorded is missing.
  setInterval(function () { if (document.querySelector('.vital') && !writing()) load(); }, 15000);

  var stream = null;
  function news(e) {
    if (seen !== e.data) load();
    if (!again) say(', live', false);
  }
  function listen() {
    stream = new EventSource(document.body.dataset.live);
    stream.addEventListener('hello', news);
    stream.addEventListener('change', news);
    stream.onerror = function () {
      say(', not live: the connection is lost', true);
      // A browser gives up on an answer that is no stream; this does not.
      if (stream.readyState === 2) setTimeout(listen, 5000);
    };
  }
  listen();
  // A page that was left may be kept whole, with its stream: six of those, and the
  // browser would open no seventh connection to this server.
  addEventListener('pagehide', function () { stream.close(); });
  addEventListener('pageshow', function (e) { if (e.persisted) listen(); });
})();
