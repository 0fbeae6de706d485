package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/notify"
)

// hook is a receiver of audit entries, which fails as often as fails says.
type hook struct {
	name  string
	fails int
	with  error
	got   []audit.Entry
}

func (h *hook) Name() string { return h.name }

func (h *hook) Deliver(_ context.Context, m remediation.Message) (string, error) {
	if h.fails != 0 {
		h.fails--
		return "", h.with
	}
	var en audit.Entry
	err := json.Unmarshal(m.Body, &en)
	h.got = append(h.got, en)
	return "", err
}

func TestAWebhookGetsEveryEntryOfItsKindsInOrder(t *testing.T) {
	w := newHarness(t)
	all := &hook{name: "webhook:all", fails: 3, with: errDown}
	some := &hook{name: "webhook:some"}
	w.webhooks = []notify.Webhook{{Channel: all, Kinds: audit.Kinds()}, {Channel: some, Kinds: []audit.Kind{audit.KindIntent, audit.KindOutcome}}}
	w.start()
	begin := len(w.entries(""))
	life(w)
	w.pass(10 * time.Minute)
	want := w.entries("")[begin:]
	if len(all.got) < len(want) {
		t.Fatalf("it got %d entries of %d", len(all.got), len(want))
	}
	for i, en := range all.got[len(all.got)-len(want):] {
		if en.Seq != want[i].Seq || en.Hash != want[i].Hash || en.Sum() != en.Hash {
			t.Fatalf("entry %d: it got %d %s, the log has %d %s", i, en.Seq, en.Kind, want[i].Seq, want[i].Kind)
		}
	}
	if len(some.got) == 0 || slices.ContainsFunc(some.got, func(en audit.Entry) bool { return en.Kind != audit.KindIntent && en.Kind != audit.KindOutcome }) {
		t.Errorf("the one for intents and outcomes got %v", some.got)
	}
}

func TestWebhooksThatRefuseEverythingDoNotFeedEachOther(t *testing.T) {
	w := newHarness(t)
	refusing := func(name string) notify.Webhook {
		return notify.Webhook{Channel: &hook{name: name, fails: -1, with: remediation.Undeliverable(errors.New("410 gone"))}, Kinds: audit.Kinds()}
	}
	w.webhooks = []notify.Webhook{refusing("webhook:one"), refusing("webhook:two")}
	w.start()
	w.open()
	w.pass(time.Minute)
	before := len(w.entries(""))
	freeze(w, time.Hour)
	w.pass(time.Second)
	after := w.entries("")[before:]
	if len(after) != 3 || after[0].Kind != audit.KindFrozen || after[1].Kind != audit.KindNotified || after[2].Detail["outcome"] != remediation.OutcomeDropped {
		t.Errorf("a freeze is followed by %v", after)
	}
}
