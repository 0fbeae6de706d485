package remediation

import "testing"

func TestWhatRunsIsSaidOnOneLine(t *testing.T) {
	for _, c := range []struct {
		r    Running
		want string
	}{
		{Running{}, "nothing"},
		{Running{Up: 2, Total: 2, Image: "shop", Version: "v3.3.2", Flags: []RunningFlag{{Name: "NEW_PRICING", Value: "false"}}}, "v3.3.2 on 2 of 2, NEW_PRICING=false"},
		{Running{Up: 1, Total: 2, Image: "shop:latest", Flags: []RunningFlag{{Name: "A", Differs: true}}}, "shop:latest on 1 of 2, A differs"},
		{Running{Up: 2, Total: 2}, "different versions on 2 of 2"},
	} {
		if got := c.r.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
