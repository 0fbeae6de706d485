package audit

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// ZeroHash is the prev of the first entry.
const ZeroHash = "0000000000000000000000000000000000000000000000000000000000000000"

// BrokenChainError says where a chain breaks: at the first entry that does not
// fit what is before it.
type BrokenChainError struct {
	Seq int64
	Why string
}

// Error implements error.
func (e *BrokenChainError) Error() string {
	return fmt.Sprintf("the audit chain breaks at entry %d: %s", e.Seq, e.Why)
}

// Chain checks entries one after the other, as the package comment describes; the
// zero value waits for the first.
type Chain struct {
	begun bool
	first int64
	seq   int64
	hash  string
}

// Add checks that e is the next entry; a *BrokenChainError says why it is not,
// and the chain stays as it was.
func (c *Chain) Add(e Entry) error {
	broken := func(seq int64, format string, args ...any) error {
		return &BrokenChainError{Seq: seq, Why: fmt.Sprintf(format, args...)}
	}
	prev, want := c.hash, c.seq+1
	if !c.begun {
		prev, want = ZeroHash, 1
		if e.Kind == KindCheckpoint && e.Seq > 1 {
			if why := checkpointFault(e); why != "" {
				return broken(e.Seq, "%s", why)
			}
			prev, want = e.Prev, e.Seq
		}
	}
	switch {
	case e.Seq > want && !c.begun:
		return broken(want, "the log begins with entry %d, which is not a checkpoint", e.Seq)
	case e.Seq > want:
		return broken(want, "it is missing, entry %d follows", e.Seq)
	case e.Seq < want:
		return broken(e.Seq, "it stands where entry %d belongs", want)
	case e.Prev != prev:
		return broken(e.Seq, "its prev is %.80q, the hash before it is %q", e.Prev, prev)
	}
	switch sum := e.Sum(); sum {
	case "":
		return broken(e.Seq, "its content has no canonical form")
	case e.Hash:
	default:
		return broken(e.Seq, "its hash is %.80q, its content has %q", e.Hash, sum)
	}
	if !c.begun {
		c.begun, c.first = true, e.Seq
	}
	c.seq, c.hash = e.Seq, e.Hash
	return nil
}

// Head returns the last entry's seq and hash; 0 and ZeroHash before the first.
func (c *Chain) Head() (seq int64, hash string) {
	if !c.begun {
		return 0, ZeroHash
	}
	return c.seq, c.hash
}

// First returns the seq the chain begins with: 1, a later checkpoint's, or 0
// before the first entry.
func (c *Chain) First() int64 { return c.first }

// checkpointFault says what is wrong with a checkpoint that begins a log.
func checkpointFault(e Entry) string {
	if len(e.Prev) != len(ZeroHash) || strings.Trim(e.Prev, "0123456789abcdef") != "" {
		return fmt.Sprintf("a checkpoint whose prev %.80q is not a hash", e.Prev)
	}
	n, err := e.Normal()
	if err != nil || n.Detail["hash"] != e.Prev || n.Detail["seq"] != json.Number(strconv.FormatInt(e.Seq-1, 10)) {
		return "a checkpoint that does not name the entry before it"
	}
	return ""
}
