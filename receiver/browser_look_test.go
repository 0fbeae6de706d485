//go:build !race

package receiver

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/locotoki/backout/remediation/crashtest"
)

func TestEveryStateOfEveryPageCanBeReadNamedAndReachedOnEveryScreen(t *testing.T) {
	all := append(looks(t), statusLooks(t)...)
	url, browser := replay(t, all, newTestService(t)), newBrowser(t)
	const tabs = 3
	for n := range tabs {
		t.Run(string(rune('a'+n)), func(t *testing.T) {
			t.Parallel()
			b := newTab(browser, t, url, "")
			for i, l := range all {
				if i%tabs == n {
					b.looksAt(l)
				}
			}
		})
	}
}

// looksAt opens a look and checks it on the narrowest screen in light colours and at a desk
// in dark ones. Unless this is the short run, it keeps pictures of it on a phone and at a
// desk, and asks axe-core about the dark colours too.
func (b *tab) looksAt(l look) {
	b.t.Helper()
	b.on(narrow)
	b.scheme("light")
	b.open("/" + l.name)
	b.fine(l.name + " light " + narrow.name)
	judge := b.shows
	if !crashtest.Sampled() {
		judge = b.fine
		for _, on := range []screen{phone, desk} {
			b.on(on) // first, since a page is higher on a narrow screen
			b.whole(on)
			for _, scheme := range []string{"light", "dark"} {
				b.scheme(scheme)
				b.shoot(strings.Join([]string{on.name, l.name, scheme}, "-"))
			}
		}
	}
	b.on(desk)
	b.scheme("dark")
	judge(l.name + " dark " + desk.name)
}

func TestAPageThatWasLeftHoldsNoConnection(t *testing.T) {
	s := newTestService(t)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	b := newTab(newBrowser(t), t, server.URL, "eve")
	for range 4 { // a browser has six connections for one server
		b.open("/")
		b.waits(", live")
		b.open("/rollout")
		b.waits(", live")
	}
	b.do(chromedp.NavigateBack())
	b.waits(", live")
	s.breach()
	b.waits("shop: a step")
}
