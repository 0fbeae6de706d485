package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// head is the last entry of a log, or one that somebody noted as its last.
type head struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}

func (h head) String() string { return fmt.Sprintf("%d:%s", h.Seq, h.Hash) }

// headFlag is a flag SEQ:HASH; nil if it is not set.
type headFlag struct{ head *head }

// String implements kingpin.Value.
func (f *headFlag) String() string {
	if f.head == nil {
		return ""
	}
	return f.head.String()
}

// Set implements kingpin.Value.
func (f *headFlag) Set(s string) error {
	seq, hash, ok := strings.Cut(s, ":")
	n, err := strconv.ParseInt(seq, 10, 64)
	if !ok || err != nil || n < 0 || len(hash) != len(audit.ZeroHash) || strings.Trim(hash, "0123456789abcdef") != "" {
		return fmt.Errorf("--head: %q is not SEQ:HASH, with a hash of 64 hexadecimal digits in lower case", s)
	}
	f.head = &head{n, hash}
	return nil
}

// verdict is the answer of audit verify.
type verdict struct {
	OK bool `json:"ok"`
	// Entries is how many were checked and are good: none if the head that was noted is not
	// among them.
	Entries int64 `json:"entries"`
	// Head is the last entry up to which the chain is consistent.
	Head head `json:"head"`
	// HeadFound says whether the head of --head is among those entries; missing without --head.
	HeadFound *bool   `json:"head_found,omitempty"`
	Broken    *broken `json:"broken,omitempty"`
}

// broken is the first entry that breaks the chain.
type broken struct {
	Seq int64  `json:"seq"`
	Why string `json:"why"`
}

func (c *commands) addAuditVerify(parent *kingpin.CmdClause) {
	clause := parent.Command("verify", "Check that no entry was changed, removed or inserted. Use --head to detect a truncated log.")
	var noted headFlag
	clause.Flag("head", "A head that you noted earlier, as SEQ:HASH. The log must contain it.").PlaceHolder("SEQ:HASH").SetValue(&noted)
	from, output := c.sourceFlags(clause), c.outputFlag(clause, reflect.TypeFor[verdict]())
	c.add(clause, func(ctx context.Context) error {
		return from.with(ctx, func(src source) error {
			work := c.progress()
			v, err := verify(ctx, src, noted.head, work)
			work.Done()
			if err != nil {
				return err
			}
			return c.answer(*output, v, v.text(), v.OK)
		})
	})
}

// verify checks the whole log, and that it contains the head that was noted.
func verify(ctx context.Context, src source, noted *head, work *terminal.Progress) (verdict, error) {
	var chain audit.Chain
	found, other := noted != nil && *noted == head{0, audit.ZeroHash}, ""
	err := eachPage(ctx, src, 0, func(entries []audit.Entry) error {
		work.Say("checked up to entry %d", entries[0].Seq-1)
		for _, e := range entries {
			if err := chain.Add(e); err != nil {
				return err
			}
			if noted != nil && e.Seq == noted.Seq {
				found, other = e.Hash == noted.Hash, e.Hash
			}
		}
		return nil
	})
	v := verdict{OK: true}
	v.Head.Seq, v.Head.Hash = chain.Head()
	if noted != nil {
		v.HeadFound = &found
	}
	if v.Head.Seq > 0 && (noted == nil || found) {
		v.Entries = v.Head.Seq - chain.First() + 1
	}
	var breaks *audit.BrokenChainError
	switch {
	case errors.As(err, &breaks):
		v.OK, v.Broken = false, &broken{breaks.Seq, breaks.Why}
	case err != nil:
		return verdict{}, err
	case noted != nil && !found:
		why := fmt.Sprintf("the log does not contain the head %s; ", noted)
		switch {
		case other != "":
			why += fmt.Sprintf("its entry %d has the hash %s", noted.Seq, other)
		case noted.Seq < chain.First():
			why += fmt.Sprintf("it begins with entry %d, earlier ones were pruned", chain.First())
		default:
			why += fmt.Sprintf("it ends with %s", v.Head)
		}
		v.OK, v.Broken = false, &broken{noted.Seq, why}
	}
	return v, nil
}

func (v verdict) text() string {
	if v.OK {
		return fmt.Sprintf("ok: %s, head %s\n", remediation.Counted(v.Entries, "entry"), v.Head)
	}
	trust := fmt.Sprintf("%s up to %s can be trusted; later ones cannot.", remediation.Counted(v.Entries, "entry"), v.Head)
	if v.HeadFound != nil && !*v.HeadFound {
		trust = fmt.Sprintf("The chain is consistent up to %s, but does not contain the head that was noted: no entry is proven.", v.Head)
	}
	return terminal.Wrap("", fmt.Sprintf("broken: entry %d: %s", v.Broken.Seq, v.Broken.Why)) + terminal.Wrap("", trust)
}
