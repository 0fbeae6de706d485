//go:build !race

// chromedp reads and writes one value of its own from two goroutines, which the
// race detector ends the test for: make test runs this file without it.

package receiver

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// screen is what a page is looked at on.
type screen struct {
	name          string
	width, height int64
	mobile        bool
}

var (
	phone  = screen{"phone", 390, 844, true}
	narrow = screen{"narrow", 320, 640, true} // as WCAG asks of what reflows
	desk   = screen{"desk", 1280, 800, false}
)

// tab is a page in a real browser.
type tab struct {
	t   testing.TB
	ctx context.Context
	url string

	mu    sync.Mutex
	wrong []string
}

// newBrowser starts a browser for the whole test.
func newBrowser(t testing.TB) context.Context {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v; try: deploy/dev/tools.sh, and put .cache/bin into PATH", err)
	}
	// No sandbox: tests run as root in containers, and load their own pages only.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-dev-shm-usage", true))
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// newTab opens a tab for a server; name logs in.
func newTab(browser context.Context, t testing.TB, url, name string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx, url: url}
	b.do(chromedp.Navigate("about:blank"))
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			// What the browser finds wrong with a page: a policy, a script. Pages that are
			// refused, as some of these are, it tells as network.
			if (m.Type == chromedp.ConsoleError || m.IsException()) && m.Source != "network" {
				b.mu.Lock()
				b.wrong = append(b.wrong, m.Text)
				b.mu.Unlock()
			}
		}
	}()
	command(b, network.Enable, network.EnableParams{})
	if name != "" {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+name+"-secret"))
		command(b, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Authorization": basic}})
	}
	return b
}

// do runs actions; all of them together have half a minute.
func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := b.soon()
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		b.t.Fatalf("in the browser: %v; the page: %.1500s", err, text)
	}
}

// soon ends in half a minute, once the tab is there.
func (b *tab) soon() (context.Context, context.CancelFunc) {
	if chromedp.FromContext(b.ctx).Target == nil {
		return b.ctx, func() {}
	}
	return context.WithTimeout(b.ctx, 30*time.Second)
}

// command sends one command of the browser's protocol.
func command[P, R any](b *tab, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := b.soon()
	defer cancel()
	r, err := chromedp.Call(ctx, cmd, params)
	if err != nil {
		b.t.Fatalf("in the browser: %v", err)
	}
	return r
}

// value asks the page for something.
func value[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := b.soon()
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("in the browser: %v", err)
	}
	return v
}

func (b *tab) on(s screen) {
	b.t.Helper()
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.mobile,
	})
}

func (b *tab) scheme(s string) {
	b.t.Helper()
	command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s}},
	})
}

func (b *tab) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.url+path), chromedp.WaitReady(chromedp.CSS("#main")))
}

// waits waits until the page holds these words, without being loaded again.
func (b *tab) waits(words string) {
	b.t.Helper()
	deadline, text := time.Now().Add(30*time.Second), ""
	for time.Now().Before(deadline) {
		// While one page leads to another there is nothing to ask: asked again.
		var err error
		if text, err = chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText")); err == nil && strings.Contains(text, words) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.t.Fatalf("the page never said %q: %.1500s", words, text)
}

// does waits until an element shows, and does something to it in the same breath: a
// page that is live may have another one in its place a moment later.
func (b *tab) does(selector, what string) {
	b.t.Helper()
	script := fmt.Sprintf(`(() => { const e = document.querySelector(%q); if (!e || !e.checkVisibility()) return false; e.%s; return true })()`, selector, what)
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](script)); err == nil && ok {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.t.Fatalf("the page never showed %s", selector)
}

func (b *tab) press(selector string) {
	b.t.Helper()
	b.does(selector, "click()")
}

// types writes into a field, as a keyboard does.
func (b *tab) types(selector, text string) {
	b.t.Helper()
	b.does(selector, "focus()")
	b.do(chromedp.KeyEvent(text))
}

// shoot keeps a picture of the whole page, for people.
func (b *tab) shoot(name string) {
	b.t.Helper()
	folder := filepath.Join("..", ".cache", "screenshots")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		b.t.Fatal(err)
	}
	picture := command(b, page.CaptureScreenshot, page.CaptureScreenshotParams{}).Data
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// whole makes the viewport as high as the page, for a picture of all of it.
func (b *tab) whole(s screen) {
	b.t.Helper()
	height := value[int64](b, "document.documentElement.scrollHeight")
	s.height = max(s.height, min(height, 6000))
	b.on(s)
}

// fine checks what must hold of every page: what shows says, and axe-core's rules.
func (b *tab) fine(what string) {
	b.t.Helper()
	b.shows(what)
	for _, p := range b.axe() {
		b.t.Errorf("%s: axe-core: %s", what, p)
	}
}

// shows checks that nothing is wider than the screen, all can be read, named and reached
// by keyboard, and the browser complains of nothing.
func (b *tab) shows(what string) {
	b.t.Helper()
	for _, p := range value[[]string](b, accessibility) {
		b.t.Errorf("%s: %s", what, p)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.wrong {
		b.t.Errorf("%s: the browser says: %s", what, w)
	}
	b.wrong = nil
}

// axeCore is axe-core 4.14.1 (MPL-2.0) as npm has it, compressed: testdata/axe.min.js.gz.
var axeCore = sync.OnceValues(func() (string, error) {
	f, err := os.Open(filepath.Join("testdata", "axe.min.js.gz"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	script, err := io.ReadAll(z)
	return string(script), err
})

// axe lists what axe-core finds wrong with the page.
func (b *tab) axe() []string {
	b.t.Helper()
	ctx, cancel := b.soon()
	defer cancel()
	if !value[bool](b, "!!window.axe") {
		script, err := axeCore()
		if err != nil {
			b.t.Fatal(err)
		}
		if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script+"; true")); err != nil {
			b.t.Fatalf("axe-core in the browser: %v", err)
		}
	}
	found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](
		`axe.run({resultTypes: ['violations']}).then(r => r.violations.map(v => v.id + ' (' + v.help + '): ' + v.nodes.slice(0, 2).map(n => n.html.slice(0, 150)).join(' | ')))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("axe-core in the browser: %v", err)
	}
	return found
}

// tabs presses the tab key through the page, and checks that focus goes through all
// that can be used, in the order in which it is, and shows.
func (b *tab) tabs(what string) {
	b.t.Helper()
	usable := value[int](b, `window.__order = Array.from(document.querySelectorAll('a[href], button, input:not([type=hidden]), select, summary, [tabindex="0"]')).filter(e => e.checkVisibility()); document.activeElement.blur(); window.__order.length`)
	last := -1
	for range usable {
		b.do(chromedp.KeyEvent(kb.Tab))
		at := value[struct {
			Index   int    `json:"index"`
			Name    string `json:"name"`
			Visible bool   `json:"visible"`
		}](b, `(() => { const e = document.activeElement, s = getComputedStyle(e);
			return {index: window.__order.indexOf(e), name: (e.textContent || e.id || e.tagName).trim().slice(0, 60), visible: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2} })()`)
		if at.Index != last+1 {
			b.t.Errorf("%s: after element %d of %d, tab leads to %q (%d)", what, last, usable, at.Name, at.Index)
			return
		}
		if !at.Visible {
			b.t.Errorf("%s: focus on %q does not show", what, at.Name)
		}
		last = at.Index
	}
	// Past the last one, focus leaves the page: nothing holds it.
	b.do(chromedp.KeyEvent(kb.Tab))
	if at := value[int](b, `window.__order.indexOf(document.activeElement)`); at > 0 {
		b.t.Errorf("%s: after the last element, tab leads back to element %d", what, at)
	}
}

// accessibility lists what is wrong with a page, as computed by the browser.
const accessibility = `(() => {
  const wrong = [];
  const screen = document.documentElement.clientWidth; // innerWidth grows with the page
  if (document.documentElement.scrollWidth > screen) {
    const wide = Array.from(document.querySelectorAll('main *')).filter(e => e.getBoundingClientRect().right > screen + 1 && !e.closest('.plotbox'));
    wrong.push('wider than the screen: ' + document.documentElement.scrollWidth + ' > ' + screen + ' ' + wide.slice(0, 3).map(e => e.outerHTML.slice(0, 80)).join(' | '));
  }
  const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return {r: m[0], g: m[1], b: m[2], a: m.length > 3 ? m[3] : 1}; };
  const light = c => [c.r, c.g, c.b].map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); });
  const lum = c => { const l = light(c); return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a === 1) return c; if (c.a > 0) wrong.push('half transparent ground'); }
    return matchMedia('(prefers-color-scheme: dark)').matches ? {r: 18, g: 18, b: 18} : {r: 255, g: 255, b: 255}; };
  const seen = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || e.closest('svg, noscript, script, style') || !e.checkVisibility()) continue;
    const s = getComputedStyle(e), a = lum(parse(s.color)), b = lum(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), size = parseFloat(s.fontSize);
    const need = size >= 24 || (size >= 18.66 && Number(s.fontWeight) >= 700) ? 3 : 4.5;
    const key = s.color + e.className + e.tagName;
    if (ratio < need && !seen.has(key)) { seen.add(key); wrong.push('contrast ' + ratio.toFixed(2) + ' of "' + walk.currentNode.data.trim().slice(0, 40) + '"'); }
    if (size < 12) wrong.push('text of ' + size + 'px: ' + walk.currentNode.data.trim().slice(0, 40));
  }
  for (const e of document.querySelectorAll('svg text')) {
    if (!e.checkVisibility()) continue;
    const a = lum(parse(getComputedStyle(e).fill)), p = e.closest('svg').querySelector('.plot-paper'), b = lum(parse(getComputedStyle(p).fill));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) { wrong.push('contrast ' + ratio.toFixed(2) + ' in the plot of "' + e.textContent + '"'); break; }
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
    if (!(e.labels && e.labels.length && e.labels[0].textContent.trim())) wrong.push('no label: ' + e.outerHTML.slice(0, 100));
  for (const e of document.querySelectorAll('a, button, summary'))
    if (!e.textContent.trim() && !e.getAttribute('aria-label')) wrong.push('no name: ' + e.outerHTML.slice(0, 100));
  for (const e of document.querySelectorAll('button, input:not([type=hidden]):not([type=checkbox]), select'))
    if (e.checkVisibility() && e.getBoundingClientRect().height < 40) wrong.push('too low to be hit: ' + e.outerHTML.slice(0, 100));
  if (document.querySelector('[tabindex]:not([tabindex="0"]):not([tabindex="-1"])')) wrong.push('a tabindex above 0');
  const ids = Array.from(document.querySelectorAll('[id]')).map(e => e.id), twice = ids.find((id, i) => ids.indexOf(id) !== i);
  if (twice) wrong.push('the id ' + twice + ' stands twice');
  for (const e of document.querySelectorAll('[aria-labelledby]'))
    for (const id of e.getAttribute('aria-labelledby').split(' ')) if (!document.getElementById(id)) wrong.push('labelled by nothing: ' + id);
  for (const e of document.querySelectorAll('input:not([type=hidden]):not([type=checkbox]), select')) {
    if (!e.checkVisibility()) continue;
    const within = lum(parse(getComputedStyle(e).backgroundColor)), edge = lum(parse(getComputedStyle(e).borderTopColor)), around = lum(ground(e.parentElement));
    if ((Math.max(edge, around) + 0.05) / (Math.min(edge, around) + 0.05) < 3) wrong.push('an edge that does not show: ' + e.outerHTML.slice(0, 100));
    const hint = lum(parse(getComputedStyle(e, '::placeholder').color));
    if (e.placeholder && (Math.max(hint, within) + 0.05) / (Math.min(hint, within) + 0.05) < 4.5) wrong.push('contrast of the hint ' + e.placeholder);
  }
  for (const e of document.querySelectorAll('.mark')) {
    if (!e.checkVisibility()) continue;
    const a = lum(parse(getComputedStyle(e, '::before').color)), b = lum(ground(e));
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 3) wrong.push('a mark that does not show: ' + e.parentElement.className);
  }
  for (const e of document.querySelectorAll('summary, nav a, .stop-links a, button'))
    if (e.checkVisibility() && !e.closest('.skip') && Math.min(e.getBoundingClientRect().height, e.getBoundingClientRect().width) < 24) wrong.push('too small to be hit: ' + e.outerHTML.slice(0, 100));
  const anchored = e => e.closest('header, nav, main, footer, .skip');
  for (const e of document.body.querySelectorAll('p, a, button, h1, h2, table')) if (!anchored(e)) { wrong.push('in no landmark: ' + e.outerHTML.slice(0, 100)); break; }
  if (document.querySelectorAll('main').length !== 1) wrong.push('not one main');
  const navs = Array.from(document.querySelectorAll('nav, form[role=search]')).map(e => e.getAttribute('aria-label'));
  if (navs.includes(null) || new Set(navs).size !== navs.length) wrong.push('landmarks of the same kind without names of their own: ' + navs);
  for (const e of document.querySelectorAll('th')) if (!e.scope) wrong.push('a heading of nothing: ' + e.outerHTML);
  for (const e of document.querySelectorAll('[role=img], svg')) if (!e.closest('[aria-hidden]') && !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')) wrong.push('a picture without a name');
  if (document.getAnimations().length) wrong.push('something moves');
  for (const e of document.querySelectorAll('body, body *')) { const s = getComputedStyle(e); if (s.transitionDuration !== '0s' || s.animationName !== 'none') { wrong.push('would move: ' + e.outerHTML.slice(0, 80)); break; } }
  let level = 0;
  for (const h of document.querySelectorAll('h1, h2, h3, h4')) { const n = Number(h.tagName[1]); if (n > level + 1) wrong.push('heading ' + h.tagName + ' after level ' + level); level = n; }
  if (document.querySelectorAll('h1').length !== 1 || !document.documentElement.lang || !document.title) wrong.push('no one h1, language or title');
  if (document.querySelector('[style], style, script:not([src])')) wrong.push('an inline style or script');
  return wrong;
})()`

func TestACommanderSeesStopsAndApprovesALiveIncidentOnAPhoneAndAtADesk(t *testing.T) {
	browser := newBrowser(t)
	for _, on := range []screen{phone, desk} {
		t.Run(on.name, func(t *testing.T) {
			s := newTestService(t)
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			b := newTab(browser, t, server.URL, "eve")
			b.on(on)
			b.open("/")
			b.waits("over its bound of 1%, and no incident is open")
			b.waits(", live")
			s.shows(0.5) // nothing is recorded of it
			s.pass(20 * time.Second)
			b.waits("53.")
			id := s.breach()
			b.waits("shop: a step has run")
			b.waits("watching whether it helped")
			b.shoot(on.name + "-now-live")

			// Freeze, from the incident's own card.
			b.press("#stop-" + id + " > summary")
			b.types("#f-"+id+"-reason", "I want to look first")
			// What is new does not take the form away from the person filling it in.
			s.beat()
			s.pass(5 * time.Minute)
			b.waits("it shows when you leave the form")
			b.types("#f-"+id+"-reason", "!"+kb.Enter)
			b.waits("eve froze all steps of shop until")
			b.waits("I want to look first!")
			b.fine("frozen")
			b.shoot(on.name + "-now-frozen")
			if list, err := s.engine.Freezes(t.Context()); err != nil || len(list) != 1 || list[0].By != "eve" {
				t.Fatal(list, err)
			}
			b.press("#thaw-now0 > summary")
			b.types("#thaw-why-now0", "go on"+kb.Enter)
			b.waits("eve thawed shop")

			// The question comes by itself, and the answer runs the step.
			s.asks(id)
			b.waits("Approve or deny?")
			b.shoot(on.name + "-now-asks")
			b.types("#why-"+id, "the snapshot is good")
			b.press(".answer .yes")
			b.waits("eve approved 4-schema_rollback of " + id)
			s.pass(15 * time.Second)
			b.waits("4-schema_rollback has run. Watching the indicator")
			s.reads(0, 0)
			s.shows(-0.03)
			s.pass(10 * time.Minute)
			b.waits("shop: monitoring lost") // which nothing told for ten minutes
			s.beat()
			b.waits("Nothing needs a person")
			b.fine("over")
			b.shoot(on.name + "-now-over")
		})
	}
}

func TestFocusGoesThroughEveryPageInTheOrderOfItsWords(t *testing.T) {
	s := newTestService(t)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	id := s.breach()
	s.asks(id)
	b := newTab(newBrowser(t), t, server.URL, "eve")
	for _, on := range []screen{phone, desk} {
		b.on(on)
		for _, path := range []string{"/", "/incidents/" + id, "/audit?kind=held", "/incidents", "/playbook", "/rollout", "/incidents/inc-99"} {
			b.open(path)
			b.tabs(path + " " + on.name)
		}
	}
	b.open("/")
	b.do(chromedp.KeyEvent(kb.Tab+kb.Enter), chromedp.KeyEvent(kb.Tab))
	if first := value[bool](b, `document.querySelector('main').contains(document.activeElement)`); !first {
		t.Error("the first link does not lead to the content")
	}
	b.open("/incidents/" + id)
	b.on(phone)
	const hands = `[document.querySelector('#do-claim'), ...document.querySelectorAll('.tool'), document.querySelector('#do-abort-0')]`
	if bottom := value[float64](b, `Math.max(...`+hands+`.map(e => e.getBoundingClientRect().bottom))`); bottom > float64(phone.height)/2 {
		t.Errorf("on a phone, claim, runbook, dashboards and abort end at %.0f of %d", bottom, phone.height)
	}
	order := value[string](b, hands+`.map(e => ({e, r: e.getBoundingClientRect()}))
		.sort((a, b) => Math.abs(a.r.top - b.r.top) > 8 ? a.r.top - b.r.top : a.r.left - b.r.left)
		.map(({e}) => (e.querySelector('summary') || e).textContent.trim().split(':')[0]).join(', ')`)
	if order != "Claim, Runbook, Dashboard, Abort the rollout" {
		t.Errorf("on a phone the order is %s", order)
	}
	command(b, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Tokyo"})
	b.open("/incidents/" + id)
	if title := value[string](b, `document.querySelector('.timeline time').title`); !strings.Contains(title, "12:00:00") || !strings.Contains(title, "GMT+9") {
		t.Errorf("the local time of 03:00 UTC in Tokyo is %q", title)
	}
	for _, path := range []string{"/incidents/" + id, "/", "/audit", "/incidents", "/rollout"} {
		b.open(path)
		if without := value[string](b, `[...document.querySelectorAll('time, [data-at]')].filter(e => !e.title.includes('GMT+9')).map(e => e.outerHTML).join(' ')`); without != "" {
			t.Errorf("on %s no local time shows on hover of %s", path, without)
		}
	}
	b.open("/incidents/" + id)
	b.on(desk)
	value[int](b, "document.querySelectorAll('details').forEach(d => { d.open = true }), 1")
	b.fine("incident, all open")
	b.tabs("incident, all open")
	b.whole(phone)
	b.shoot("phone-incident-open")
}
