package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

func TestTheRunningEngineSetsTheTrafficAndTheCallerWaitsForIt(t *testing.T) {
	c := newCanary(t)
	for _, kind := range c.kinds() {
		c.target(kind.Name()) // the engine looks ahead at all of them, at once
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.engine.Run(ctx) }()
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c.must(c.begin(remediation.RolloutStart{}))
	r, err := c.engine.WaitForPromotion(patience, "")
	if err != nil || r.Stage != "alpha" || r.Promotion != nil {
		t.Errorf("started: %+v %v", r, err)
	}
	c.must(c.do(remediation.RolloutPromote, true))
	r, err = c.engine.WaitForPromotion(patience, "shop")
	if err != nil || r.Stage != "beta" || r.Traffic != "0.1" {
		t.Errorf("promoted: %+v %v", r, err)
	}
	stop()
	c.must(<-ended)
	if got := c.flag.history; len(got) != 2 || got[0] != "0.01" || got[1] != "0.1" {
		t.Errorf("the flag was set to %v", got)
	}
}

func TestAWaitThatIsCutOffAnswersWithThePromotionUnderWay(t *testing.T) {
	c := newCanary(t)
	c.must(c.begin(remediation.RolloutStart{})) // and nobody carries it out
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := c.engine.WaitForPromotion(ctx, "")
	if err != nil || r.Promotion == nil || r.Promotion.To != "alpha" || r.Promotion.Before != nil {
		t.Errorf("%+v %v", r, err)
	}
}
