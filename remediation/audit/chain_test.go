package audit_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation/audit"
)

func TestTheChainSaysWhereItBreaks(t *testing.T) {
	log := func() []audit.Entry {
		var out []audit.Entry
		var c audit.Chain
		for i := range 9 {
			e := audit.Entry{Kind: audit.KindStarted}
			seq, hash := c.Head()
			if i == 4 { // entry 5
				e.Kind, e.Detail = audit.KindCheckpoint, map[string]any{"seq": seq, "hash": hash}
			}
			e, _, err := e.Seal(seq, hash)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Add(e); err != nil {
				t.Fatal(err)
			}
			out = append(out, e)
		}
		return out
	}
	seal := func(e audit.Entry) audit.Entry { e.Hash = e.Sum(); return e }
	for name, c := range map[string]struct {
		edit func(l []audit.Entry) []audit.Entry
		seq  int64 // 0: it holds
		why  string
	}{
		"whole":                     {func(l []audit.Entry) []audit.Entry { return l }, 0, ""},
		"empty":                     {func([]audit.Entry) []audit.Entry { return nil }, 0, ""},
		"pruned to a checkpoint":    {func(l []audit.Entry) []audit.Entry { return l[4:] }, 0, ""},
		"cut off at its end":        {func(l []audit.Entry) []audit.Entry { return l[:4] }, 0, ""}, // only a known head tells
		"cut off at its start":      {func(l []audit.Entry) []audit.Entry { return l[3:] }, 1, "begins with entry 4, which is not a checkpoint"},
		"a gap":                     {func(l []audit.Entry) []audit.Entry { return append(l[:2], l[3:]...) }, 3, "it is missing, entry 4 follows"},
		"a gap before a checkpoint": {func(l []audit.Entry) []audit.Entry { return append(l[:2], l[4:]...) }, 3, "it is missing"},
		"twice":                     {func(l []audit.Entry) []audit.Entry { return append(l[:2:2], l[1:]...) }, 2, "stands where entry 3 belongs"},
		"changed":                   {func(l []audit.Entry) []audit.Entry { l[2].Actor = "eve"; return l }, 3, "its hash is"},
		"changed and hashed anew": {func(l []audit.Entry) []audit.Entry {
			l[2].Actor = "eve"
			l[2] = seal(l[2])
			return l
		}, 4, "its prev is"},
		"a first with a prev": {func(l []audit.Entry) []audit.Entry {
			l[0].Prev = l[3].Hash
			l[0] = seal(l[0])
			return l
		}, 1, "its prev is"},
		"a first checkpoint with seq 1": {func(l []audit.Entry) []audit.Entry {
			l[4].Seq = 1
			return []audit.Entry{seal(l[4])}
		}, 1, "its prev is"},
		"a checkpoint of another place": {func(l []audit.Entry) []audit.Entry {
			l[4].Seq = 6
			return []audit.Entry{seal(l[4])}
		}, 6, "does not name the entry before it"},
		"a checkpoint without a prev": {func(l []audit.Entry) []audit.Entry {
			l[4].Prev = "x"
			return []audit.Entry{seal(l[4])}
		}, 5, "is not a hash"},
		"not in normal form": {func(l []audit.Entry) []audit.Entry {
			l[2].Detail = map[string]any{"a": 0.5}
			l[2].Hash = ""
			return l
		}, 3, "no canonical form"},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.edit(log())
			var chain audit.Chain
			var err error
			for i := 0; i < len(l) && err == nil; i++ {
				err = chain.Add(l[i])
			}
			var broken *audit.BrokenChainError
			switch {
			case c.seq == 0 && err != nil:
				t.Fatal(err)
			case c.seq == 0:
			case !errors.As(err, &broken) || broken.Seq != c.seq || !strings.Contains(broken.Why, c.why):
				t.Fatalf("got %v, want entry %d: %s", err, c.seq, c.why)
			}
		})
	}
}
