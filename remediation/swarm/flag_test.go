package swarm

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

func TestAFlagGoesOffInTheEnvFileAndInEachTask(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]options{
		"by the shell's variable": {},
		"by env_file":             {envFile: "[shop.env]"},
		"by another name":         {environment: "[\"FLAG=${SHOP_FLAG:-1}\"]", env: "TAG=v2.0.0\nSHOP_FLAG=1\n"},
		"by the shell's own":      {environment: "[FLAG]"},
		"by a default":            {environment: "{FLAG: \"${FLAG:-1}\"}", env: "TAG=v2.0.0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			w.expectSaid("1 v2.0.0", 2)
			state := w.state()
			a := w.flagOff(w.client(nil))
			before := w.apply(a)
			w.expectSaid("0 v2.0.0", 2)
			if n := w.updates.Load(); n != 1 {
				t.Errorf("%d updates, want one", n)
			}
			if mark := w.see().marks()["env/FLAG"]; mark != op {
				t.Errorf("mark %q", mark)
			}
			w.deploy()
			w.settled()
			w.expectSaid("0 v2.0.0", 2)
			w.look(a, remediation.Wanted)
			if err := a.Restore(t.Context(), op, before); err != nil {
				t.Fatal(err)
			}
			if got := w.state(); got != state {
				t.Errorf("restored to\n%s\nfrom\n%s", got, state)
			}
			w.expectSaid("1 v2.0.0", 2)
		})
	}
}

func TestWhatTheStackFileDecidesIsRefusedWithItsLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    options
		want string
	}{
		"a literal":           {options{environment: "{FLAG: \"1\"}"}, "stack.yml:5: service web sets FLAG there"},
		"a literal in a list": {options{environment: "[\"FLAG=1\"]", envFile: "[shop.env]"}, "stack.yml:5: service web sets FLAG there"},
		"not there":           {options{environment: "{OTHER: x}"}, "stack.yml:4: service web does not take FLAG from"},
		"a comment behind it": {options{envFile: "[shop.env]", env: "TAG=v2.0.0\nFLAG=1 # on\n"}, "shop.env:2: docker stack deploy takes all that follows FLAG="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.o.replicas = 1
			w := newWorld(t, c.o)
			state := w.state()
			_, err := w.flagOff(w.client(nil)).Look(t.Context(), op)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if err := w.flagOff(w.client(nil)).Apply(t.Context(), op, nil); err == nil || w.state() != state {
				t.Errorf("%v; it became\n%s\nfrom\n%s", err, w.state(), state)
			}
		})
	}
}
