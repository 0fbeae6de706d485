package lease_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/lease"
)

// The model: two replicas, a step that changes a target and is perhaps restored, and
// everything that may happen between: a crash, or a pause of any length (a replica that
// takes no turn), anywhere; a lease that lapses; an answer that is lost; a request that
// arrives late. Each transition is one atomic thing: a transaction, a look, a request that
// leaves, one that arrives. The leases are Take and Check themselves.
//
// Of the design's invariants it covers those that depend on the order of what two replicas
// do: 3 (intent before the effect, outcome with the next state), 4 (after a crash, a look
// before anything else) and 5 (twice has the effect of once), and in model_store_test.go the
// leases and the fence of SQLite and PostgreSQL, the latter by two stores. The others say
// what is right in one transaction or at one look, which the model takes for one move. Their
// tests, in remediation/engine where no other folder is named:
//
//	1  answered 200 once committed      cmd/backout/postgres_test.go, store/crash_test.go, receiver/webhook_test.go
//	2  one open incident, one step      store/storetest/incident.go, lock_test.go
//	6  limits and approvals are kept    limit_test.go, approval_test.go, store/storetest/service.go
//	7  nothing acts against a gate      gate_test.go, limit_test.go; action/actiontest for odd targets
//	8  lossy steps need an approval     approval_test.go, remediation/postgres
//	9  messages delay no step           outbox_test.go
//	10 a lost watchdog means blind      blind_test.go, cmd/backout/replicas_fault_test.go
//	11 a step needs a breach seen       ladder_test.go, signal_test.go
//	12 labels stay out of arguments     alerts, remediation/action, remediation/docker
//
// Its bounds: two replicas, two crashes, three requests under way, and four epochs in the
// long run, three in the short one. What it takes for granted is in the package's comment;
// rules switches each rule off.

// maxEpoch is the last epoch that the model goes to.
func maxEpoch() byte { return byte(3 + crashtest.Rounds(8)/8) }

// rules are the protocol's; each is needed.
type rules struct {
	epochs  byte // the bound
	fence   bool // a transaction of an old epoch fails
	looks   bool // an intent that this holder did not write is looked at first
	expires bool // a holder does not call a target once its lease has lapsed
	waits   bool // an untouched target says nothing if an older request might have arrived after the look
	lapses  bool // so does one of a lapsed lease
	bumps   bool // taking a lease counts its epoch up
	late    bool // what an old holder still knows is appended as late_outcome, and changes no row
}

// protocol has all of them.
func protocol() rules {
	return rules{epochs: maxEpoch(), fence: true, looks: true, expires: true, waits: true, lapses: true, bumps: true, late: true}
}

type phase byte

const (
	pending phase = iota
	applying
	done
	restoring // asked for, no intent yet
	undoing
	undone
	skipped // a person closed the gates: it never ran
)

func (p phase) settled() bool { return p == done || p == undone || p == skipped }

// pc is what a replica does next.
type pc byte

const (
	off     pc = iota // crashed
	idle              // holds nothing
	holds             // has a lease, and reads the step
	intends           // has written an intent
	sends             // has seen that its lease is in force, and sends
	waiting           // for the answer
	answers           // has it
	doubts            // must look
	seen0             // looked: untouched
	seen1             // looked: changed
)

type proc struct {
	pc    pc
	id    byte // of this run
	epoch byte // of its lease
	// forEpoch is the epoch of the intent that it carries out.
	forEpoch byte
	undo     bool // of that intent
	// early: when it looked, an older request might still have arrived.
	early bool
}

// request is under way to the target.
type request struct {
	undo  bool
	epoch byte
	proc  byte // 1, 2: who waits for it; 0: nobody does any more
}

// state is all of it; comparable, so that it is visited once.
type state struct {
	// The store's rows.
	holder, epoch byte
	lapsed        bool
	step          phase
	stepEpoch     byte // of its intent
	// The target.
	changed bool
	// What is under way.
	requests [3]request
	n        byte
	procs    [2]proc
	// runs and crashes are used up.
	runs, crashes byte
	// What has happened, for the invariants.
	highest  byte // epoch of the log's entries
	changes  byte // how often the target was really changed
	intents  byte // bit 0: an apply's intent was written, 1: an undo's
	looked   byte // epoch in which the target was looked at last
	restored bool // was asked for
}

// rows are a state's leases as Take sees them: now is 0, and a lease lasts for 1.
type rows struct{ s *state }

var epoch0 = time.Unix(0, 0).UTC()

func (r rows) Now() (time.Time, error) { return epoch0, nil }

func (r rows) Lease(realm string) (remediation.Lease, error) {
	if r.s.epoch == 0 {
		return remediation.Lease{}, remediation.ErrNotFound
	}
	l := remediation.Lease{Realm: realm, Holder: string(rune('a' + r.s.holder)), Epoch: int64(r.s.epoch), Until: epoch0}
	if !r.s.lapsed {
		l.Until = epoch0.Add(1)
	}
	return l, nil
}

func (r rows) PutLease(l remediation.Lease) error {
	r.s.holder, r.s.epoch, r.s.lapsed = l.Holder[0]-'a', byte(l.Epoch), !l.Until.After(epoch0)
	return nil
}

// driver does the model's transactions on a store as well, and says where it differs.
type driver interface {
	take(holder, epoch byte) (got byte, err error)
	lapse()
	// write appends an entry under an epoch, or fails with ErrLost.
	write(holder, epoch byte, kind audit.Kind) error
}

// move is one thing that may happen.
type move struct {
	name string
	to   state
	// on does the same on a real store.
	on func(d driver) error
	// broken is the invariant that this breaks.
	broken string
}

func noop(driver) error { return nil }

// moves are all that may happen in a state.
func (ru rules) moves(s state) (out []move) {
	add := func(name string, to state, on func(driver) error, broken string) {
		if on == nil {
			on = noop
		}
		out = append(out, move{name, to, on, broken})
	}
	// The environment.
	if s.epoch > 0 && !s.lapsed {
		to := s
		to.lapsed = true
		add("the lease lapses", to, func(d driver) error { d.lapse(); return nil }, "")
	}
	for i := range s.n {
		r := s.requests[i]
		to := s
		to.drop(i)
		broken := ""
		if to.changed == r.undo { // it really changes something
			to.changed = !r.undo
			to.changes++
			want := byte(1)
			if r.undo {
				want = 2
			}
			if s.intents&want == 0 {
				broken = "3: an effect without an intent"
			}
			// One change forth, and one back where that was asked for.
			if to.changes > 1 && !s.restored || to.changes > 2 {
				broken = "5: the effect of one step happened twice"
			}
		}
		if r.proc > 0 {
			answered := to
			answered.procs[r.proc-1].pc = answers
			add("a request arrives, and is answered", answered, nil, broken)
			to.procs[r.proc-1].pc = doubts
			add("a request arrives, and its answer is lost", to, nil, broken)
			lost := s
			lost.drop(i)
			lost.procs[r.proc-1].pc = doubts
			add("a request is lost", lost, nil, "")
			continue
		}
		add("a late request arrives", to, nil, broken)
		gone := s
		gone.drop(i)
		add("a late request is lost", gone, nil, "")
	}
	// A person.
	if s.step == pending {
		to := s
		to.step = skipped
		add("a person skips the step", to, nil, "")
	}
	if s.step == done && !s.restored {
		to := s
		to.step, to.restored = restoring, true
		add("a person asks for a restore", to, nil, "")
	}
	for i := range s.procs {
		out = append(out, ru.turns(s, i)...)
	}
	return out
}

func (s *state) drop(i byte) {
	s.requests[i] = s.requests[s.n-1]
	s.requests[s.n-1] = request{}
	s.n--
	slices.SortFunc(s.requests[:s.n], func(a, b request) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}

// orphan leaves a replica's request to itself.
func (s *state) orphan(i int) {
	for k := range s.n {
		if s.requests[k].proc == byte(i+1) {
			s.requests[k].proc = 0
		}
	}
}

// turns are what a replica may do next.
func (ru rules) turns(s state, i int) (out []move) {
	p := s.procs[i]
	name := string(rune('A' + i))
	add := func(what string, on func(driver) error, broken string, change func(s *state, p *proc)) {
		to := s
		change(&to, &to.procs[i])
		if on == nil {
			on = noop
		}
		out = append(out, move{name + " " + what, to, on, broken})
	}
	if p.pc == off {
		if s.runs < 4 {
			add("starts", nil, "", func(s *state, p *proc) {
				s.runs++
				*p = proc{pc: idle, id: s.runs}
			})
		}
		return out
	}
	if s.crashes < 2 {
		add("crashes", nil, "", func(s *state, p *proc) {
			s.crashes++
			s.orphan(i)
			*p = proc{}
		})
	}
	// Its lease is lost to a call under way: the call ends, and what it came to is unknown.
	if p.pc == waiting && s.lostBy(p) {
		add("ends its call with its lease", nil, "", func(s *state, p *proc) {
			s.orphan(i)
			p.pc = doubts
		})
	}
	switch p.pc {
	case idle, holds:
		out = append(out, ru.takes(s, i)...)
		if p.pc == holds {
			out = append(out, ru.begins(s, i)...)
		}
	case intends:
		if ru.expires && s.lostBy(p) {
			add("sees that its lease is lost", nil, "", func(_ *state, p *proc) { p.pc = doubts })
			break
		}
		add("sees its lease in force", nil, "", func(_ *state, p *proc) { p.pc = sends })
	case sends:
		if s.n == 3 {
			break
		}
		broken := ""
		if p.forEpoch < p.epoch && s.looked < p.epoch {
			broken = "4: acted blindly on an intent of another"
		}
		add("sends", nil, broken, func(s *state, p *proc) {
			s.requests[s.n] = request{p.undo, p.epoch, byte(i + 1)}
			s.n++
			p.pc = waiting
		})
	case answers:
		out = append(out, ru.commits(s, i, "writes the outcome", audit.KindOutcome, func(s *state, p *proc) {
			s.step = done
			if p.undo {
				s.step = undone
			}
		}))
	case doubts:
		add("looks", nil, "", func(s *state, p *proc) {
			s.looked = max(s.looked, p.epoch)
			p.early = p.forEpoch < p.epoch && s.mayArrive(p.epoch)
			if p.pc = seen0; s.changed {
				p.pc = seen1
			}
		})
	case seen0, seen1:
		wanted := (p.pc == seen1) != p.undo
		switch {
		case wanted:
			out = append(out, ru.commits(s, i, "writes that it was done", audit.KindInDoubt, func(s *state, p *proc) {
				s.step = done
				if p.undo {
					s.step = undone
				}
			}))
		case ru.waits && p.early:
			add("looks again: an older request might have arrived since", nil, "", func(_ *state, p *proc) { p.pc = doubts })
		default:
			out = append(out, ru.commits(s, i, "writes that nothing was done", audit.KindInDoubt, func(s *state, p *proc) {
				s.step = pending
				if p.undo {
					s.step = restoring
				}
			}))
		}
	}
	return out
}

// lostBy: a replica knows its lease to be lost, which it does once the store's clock says
// so: it counts from before it asked.
func (s state) lostBy(p proc) bool { return s.lapsed || s.epoch != p.epoch || s.holder != p.id }

// mayArrive: a request of an older epoch is under way, or about to leave.
func (s state) mayArrive(epoch byte) bool {
	for i := range s.n {
		if s.requests[i].epoch < epoch {
			return true
		}
	}
	return slices.ContainsFunc(s.procs[:], func(p proc) bool { return p.pc == sends && p.epoch < epoch })
}

// takes is a replica's beat: it takes or renews the lease. It ends what it does under a
// lost one first.
func (ru rules) takes(s state, i int) []move {
	p := s.procs[i]
	if s.epoch >= ru.epochs && s.lapsed { // the bound
		return nil
	}
	to := s
	l, _, err := lease.Take(rows{&to}, "", string(rune('a'+p.id)), int64(p.epoch), 1)
	if !ru.bumps && err == nil && s.epoch > 0 {
		to.epoch, l.Epoch = s.epoch, int64(s.epoch)
	}
	on := func(d driver) error {
		got, derr := d.take(p.id, p.epoch)
		if !errors.Is(derr, err) || err == nil && got != byte(l.Epoch) {
			return fmt.Errorf("the store gave epoch %d (%w), the model %d (%w)", got, derr, l.Epoch, err)
		}
		return nil
	}
	switch {
	case errors.Is(err, lease.ErrLost):
		to.procs[i] = proc{pc: idle, id: p.id}
		return []move{{string(rune('A'+i)) + " is refused the lease", to, on, ""}}
	case err != nil:
		panic(err)
	}
	to.procs[i] = proc{pc: holds, id: p.id, epoch: byte(l.Epoch)}
	return []move{{fmt.Sprintf("%c has the lease, epoch %d", 'A'+i, l.Epoch), to, on, ""}}
}

// begins is what a holder does about the step as it is.
func (ru rules) begins(s state, i int) []move {
	p := s.procs[i]
	switch s.step {
	case pending, restoring:
		m := ru.commits(s, i, "writes an intent", audit.KindIntent, func(s *state, p *proc) {
			p.undo, p.forEpoch, p.pc = s.step == restoring, p.epoch, intends
			s.stepEpoch = p.epoch
			if s.step, s.intents = applying, s.intents|1; p.undo {
				s.step, s.intents = undoing, s.intents|2
			}
		})
		if m.to.procs[i].pc == holds { // the fence let it through
			m.to.procs[i].pc = intends
		}
		return []move{m}
	case applying, undoing:
		to := s
		to.procs[i].undo, to.procs[i].forEpoch, to.procs[i].pc = s.step == undoing, s.stepEpoch, doubts
		if !ru.looks {
			to.procs[i].pc = intends
		}
		_ = p
		return []move{{fmt.Sprintf("%c finds an intent of epoch %d", 'A'+i, s.stepEpoch), to, noop, ""}}
	}
	return nil
}

// commits is a transaction of a replica, fenced.
func (ru rules) commits(s state, i int, what string, kind audit.Kind, change func(s *state, p *proc)) move {
	p := s.procs[i]
	to := s
	open := !s.lostBy(p)
	if !ru.lapses {
		open = s.epoch == p.epoch && s.holder == p.id
	}
	late := false
	switch {
	case open || !ru.fence:
		to.procs[i].pc = holds
		change(&to, &to.procs[i])
	case ru.late: // what it knows is appended, and decides nothing
		late = true
		to.procs[i] = proc{pc: idle, id: p.id}
		what += ", too late"
	default:
		to.procs[i] = proc{pc: idle, id: p.id}
		what += ", and drops it"
	}
	broken := ""
	if !late && (open || !ru.fence) {
		if p.epoch < s.highest {
			broken = "1: an entry of an old epoch behind one of a newer"
		}
		to.highest = max(s.highest, p.epoch)
	}
	on := func(d driver) error {
		err := d.write(p.id, p.epoch, kind)
		if lost := errors.Is(err, lease.ErrLost); lost == open {
			return fmt.Errorf("the store's fence is open: %v, the model's: %v (%w)", !lost, open, err)
		}
		if late {
			return d.write(0, 0, audit.KindLateOutcome)
		}
		return nil
	}
	return move{fmt.Sprintf("%c %s", 'A'+i, what), to, on, broken}
}

// quiet: nothing is under way, and nobody is in the midst of anything.
func (s state) quiet() bool {
	return s.n == 0 && s.step.settled() && !slices.ContainsFunc(s.procs[:], func(p proc) bool { return p.pc > holds })
}

// wrong is the invariant that a state breaks.
func (s state) wrong() string {
	if !s.quiet() {
		return ""
	}
	if (s.step == done) != s.changed {
		return fmt.Sprintf("3: at rest the step is %d and the target changed: %v", s.step, s.changed)
	}
	return ""
}

func start() state { return state{procs: [2]proc{{pc: idle, id: 1}, {pc: idle, id: 2}}, runs: 2} }

// explored is what came of visiting every state.
type explored struct {
	states, moves int
	// broken is the first invariant that does not hold, with the way to it.
	broken string
	way    []string
}

func (ru rules) explore() explored {
	type from struct {
		s    state
		name string
	}
	came := map[state]from{}
	back := map[state][]state{}
	first := start()
	came[first] = from{}
	queue := []state{first}
	e := explored{}
	fail := func(s state, last, what string) explored {
		e.broken, e.way = what, nil
		if last != "" {
			e.way = []string{last}
		}
		for s != first {
			f := came[s]
			e.way = append(e.way, f.name)
			s = f.s
		}
		slices.Reverse(e.way)
		return e
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		e.states++
		if w := s.wrong(); w != "" {
			return fail(s, "", w)
		}
		for _, m := range ru.moves(s) {
			e.moves++
			if m.broken != "" {
				return fail(s, m.name, m.broken)
			}
			back[m.to] = append(back[m.to], s)
			if _, ok := came[m.to]; !ok {
				came[m.to] = from{s, m.name}
				queue = append(queue, m.to)
			}
		}
	}
	// Nothing is stuck: from everywhere a state of rest can be reached, but for the bounds.
	reach := map[state]bool{}
	var work []state
	for s := range came {
		if s.quiet() || s.epoch == ru.epochs || s.runs == 4 && s.procs[0].pc == off && s.procs[1].pc == off {
			reach[s] = true
			work = append(work, s)
		}
	}
	for len(work) > 0 {
		s := work[len(work)-1]
		work = work[:len(work)-1]
		for _, b := range back[s] {
			if !reach[b] {
				reach[b] = true
				work = append(work, b)
			}
		}
	}
	for s := range came {
		if !reach[s] {
			return fail(s, "", "stuck: no rest can be reached")
		}
	}
	return e
}

func TestWhateverHappensBetweenTwoReplicasNoInvariantBreaks(t *testing.T) {
	e := protocol().explore()
	t.Logf("%d states, %d moves", e.states, e.moves)
	if e.broken != "" {
		t.Fatalf("%s:\n  %s", e.broken, strings.Join(e.way, "\n  "))
	}
	if e.states < 50_000 {
		t.Errorf("only %d states were visited", e.states)
	}
}

func TestEachRuleOfTheLeasesIsNeeded(t *testing.T) {
	for name, off := range map[string]func(*rules){
		"no fence":                               func(r *rules) { r.fence = false },
		"an intent of another is not looked at":  func(r *rules) { r.looks = false },
		"calls go on after the lease":            func(r *rules) { r.expires = false },
		"an untouched target is believed":        func(r *rules) { r.waits = false },
		"a lapsed lease may write":               func(r *rules) { r.lapses = false },
		"a lease is taken without another epoch": func(r *rules) { r.bumps = false },
	} {
		ru := protocol()
		off(&ru)
		e := ru.explore()
		if e.broken == "" {
			t.Errorf("%s: nothing breaks", name)
			continue
		}
		t.Logf("%s: %s\n  %s", name, e.broken, strings.Join(e.way, "\n  "))
	}
}
