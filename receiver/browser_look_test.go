//go:build !race

package receiver

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

func TestEveryStateOfEveryPageCanBeReadNamedAndReachedOnEveryScreen(t *testing.T) {
	all := looks(t)
	console := newShop(t)
	public := statusLooks(t)
	b := newTab(newBrowser(t), t, replay(t, append(all, public...), console), "")
	for _, l := range append(all, public...) {
		b.on(narrow)
		b.open("/" + l.name)
		b.fine(l.name + " " + narrow.name)
		for _, scheme := range []string{"light", "dark"} {
			b.scheme(scheme)
			for _, on := range []screen{phone, desk} {
				b.on(on)
				b.fine(strings.Join([]string{l.name, scheme, on.name}, " "))
				b.whole(on)
				b.shoot(strings.Join([]string{on.name, l.name, scheme}, "-"))
			}
		}
	}
}

func TestAPageThatWasLeftHoldsNoConnection(t *testing.T) {
	s := newShop(t)
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
	b.waits("1 incident open")
}
