package remediation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
)

// Status is a check's status.
type Status string

// The statuses of a check. Where nothing could tell, it is CannotTell: a person may
// sign for that, and not for a Fail.
const (
	Pass       Status = "pass"
	Fail       Status = "fail"
	CannotTell Status = "cannot_tell"
)

// Result is the result of a check: its status, what was seen, and what to do next.
type Result struct {
	Status   Status `json:"result"`
	Evidence string `json:"evidence"`
	Next     string `json:"next,omitempty"`
	// Cause is what kept this check, and others with the same cause, from telling anything:
	// it is signed off once, whatever else the evidence says. "": all of the evidence is.
	Cause string `json:"cause,omitempty"`
	// Unknown, where set, is what a trial of several checks could not tell, without the rest
	// of its evidence.
	Unknown string `json:"unknown,omitempty"`
}

// Because is a Result that shares its evidence's cause with others.
func (f Result) Because(cause string) Result {
	f.Cause = steady(cause)
	return f
}

// because is what a Result that tells nothing is signed off for.
func (f Result) because() string { return cmp.Or(f.Cause, f.Unknown, f.Evidence) }

// PreflightCheck is one check before a rollout starts. Run leaves nothing behind, however it
// ends.
type PreflightCheck struct {
	// ID is unique in a preflight and the same in the next one, such as
	// image_retag/previous_image.
	ID string
	// Name says in a few words what is checked.
	Name string
	Run  func(ctx context.Context) Result
}

// SelfChecking is an Action that can check beforehand that it would work.
type SelfChecking interface {
	Action
	Checks() []PreflightCheck
}

// CheckingKind is a kind with more checks for a step than its action has.
type CheckingKind interface {
	ActionKind
	Checks(pb *alerts.Playbook, params any) ([]PreflightCheck, error)
}

// Permitted is an Action that can ask whether its credentials may change the target: a look
// shows only that they may read it.
type Permitted interface {
	Action
	// Permitted changes nothing. Where nobody can tell, it is Unknown.
	Permitted(ctx context.Context) Result
}

// Sweeper is an Action whose checks leave something behind if the process is killed
// while they run.
type Sweeper interface {
	Action
	Sweep(ctx context.Context) error
}

// Accepter is a Channel that can report whether it would deliver: its address answers
// and accepts the credentials. It notifies nobody.
type Accepter interface {
	Channel
	Accepts(ctx context.Context) error
}

// Sources are what a preflight asks around a service.
type Sources interface {
	// Rules returns the rules that Prometheus has loaded.
	Rules(ctx context.Context) ([]LoadedRule, error)
	// LabelValues returns the values of a label on the series of a selector.
	LabelValues(ctx context.Context, selector, label string) ([]string, error)
	// ScrapeIntervals returns, by its job, how often Prometheus scrapes a target: the
	// longest of the job's.
	ScrapeIntervals(ctx context.Context) (map[string]time.Duration, error)
	// Clocks tells how far other clocks are off from backout's.
	Clocks(ctx context.Context) []Clock
	// RaiseAlert posts an alert to Alertmanager, which ends it at until.
	RaiseAlert(ctx context.Context, labels map[string]string, until time.Time) error
	// Page returns the status that an address answers; no redirection is followed.
	Page(ctx context.Context, address string) (status int, err error)
}

// LoadedRule is a rule that Prometheus has loaded.
type LoadedRule struct {
	Group, Name string
	Alert       bool
	Expr        string
	For         time.Duration
	Labels      map[string]string
	Annotations map[string]string
	// Error is why its last evaluation failed, "" where it did not.
	Error string
}

// Clock is another clock; Ahead is how far it is ahead of ours, negative if behind.
type Clock struct {
	Of    string
	Ahead time.Duration
	Err   error
}

// Passed is a Result of a check that passed.
func Passed(evidence string) Result { return Result{Status: Pass, Evidence: evidence} }

// ResultOf is what an error means to a check: an effect or an answer in doubt
// tells nothing, everything else is a failure. Its hint is what to do
// next.
func ResultOf(err error) Result {
	if err == nil {
		return Result{Status: Pass}
	}
	f := Result{Status: Fail}
	if IsInDoubt(err) || errors.Is(err, ErrNoAnswer) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		f.Status = CannotTell
	}
	f.Evidence, f.Next = hint.Of(err)
	if f.Status == CannotTell {
		f = f.Because(f.Evidence)
	}
	return f
}

// Unknown is a Result of a check without a result.
func Unknown(evidence, next string) Result {
	return Result{Status: CannotTell, Evidence: evidence, Next: next}
}

// Failed is a Result of a check that failed.
func Failed(evidence, next string) Result {
	return Result{Status: Fail, Evidence: evidence, Next: next}
}

// PreflightItem is one line of a preflight: a check, or a piece of people's work.
type PreflightItem struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Owner is who answers for a piece of people's work; "" for a proof.
	Owner string `json:"owner"`
	// Before: a rollout does not start without it.
	Before bool `json:"before"`
	// BeforeFinish: a rollout does not finish without it.
	BeforeFinish bool `json:"-"`
	Result
	Signed *Signature `json:"signed"`
	// Lapsed says that a sign-off no longer counts, and since when.
	Lapsed string `json:"lapsed,omitempty"`
}

// Signature is a person's sign-off of an item, for one release of one playbook, and for
// what was seen then.
type Signature struct {
	Item    string `json:"item"`
	Release string `json:"release"`
	// Playbook is the playbook's hash, Evidence what was seen; a signature of an
	// earlier version of backout has neither.
	Playbook string    `json:"playbook,omitempty"`
	Evidence string    `json:"evidence,omitempty"`
	Cause    string    `json:"cause,omitempty"`
	By       string    `json:"by"`
	Actor    string    `json:"actor"`
	Reason   string    `json:"reason"`
	Time     time.Time `json:"time"`
}

// Preflight is what is stored of a service's preflights: the last complete run, and
// people's sign-offs.
type Preflight struct {
	Service    string        `json:"service"`
	Run        *PreflightRun `json:"run"`
	Signatures []Signature   `json:"signatures"`
	// Going is the preflight or rehearsal that is asked for or runs; nil: none.
	Going *PreflightGoing `json:"going,omitempty"`
}

// PreflightGoing is a preflight or a rehearsal that is asked for, or runs, as far as it has
// come. The replica that acts in the service's realm runs it.
type PreflightGoing struct {
	PreflightRun
	// Left counts the checks, or a rehearsal's steps, that are to come.
	Left int `json:"left"`
	// Plans are those that a rehearsal is of, none for a preflight; Done are the ones that
	// were rehearsed, and the one that is.
	Plans []string    `json:"plans,omitempty"`
	Done  []Rehearsal `json:"done,omitempty"`
	// Begun: somebody runs it. One whose process ended is cut off.
	Begun bool `json:"begun,omitempty"`
}

// Describe names it: "a preflight".
func (g PreflightGoing) Describe() string {
	if len(g.Plans) > 0 {
		return "a rehearsal"
	}
	return "a preflight"
}

// PreflightRun is one run.
type PreflightRun struct {
	Release string `json:"release"`
	// Playbook is the hash of the playbook that was proved.
	Playbook string          `json:"playbook"`
	By       string          `json:"by"`
	Reason   string          `json:"reason"`
	Started  time.Time       `json:"started"`
	Finished time.Time       `json:"finished"`
	Items    []PreflightItem `json:"items"`
}

// PreflightView is a preflight as the API and the commands show it.
type PreflightView struct {
	Service string `json:"service"`
	Release string `json:"release"`
	// Running: Items are those of the run that goes on; what is not proved yet is
	// not in it, and Left counts it.
	Running  bool            `json:"running"`
	Left     int             `json:"left"`
	By       string          `json:"by"`
	Started  *time.Time      `json:"started"`
	Finished *time.Time      `json:"finished"`
	Items    []PreflightItem `json:"items"`
	// Missing says why a rollout would not start; empty where it would.
	Missing []string `json:"missing"`
}

// Signed returns who signed an item for a release, or nil, whatever became of the release
// since. Under the playbook of that release the signature counts only as long as the
// playbook, and what was seen of the item, are what they were. One cause of several items
// is signed off once.
func (p Preflight) Signed(b *alerts.Playbook, it PreflightItem, release string) *Signature {
	return p.signed(b, it, release, func(*Signature) bool { return true })
}

func (p Preflight) signed(b *alerts.Playbook, it PreflightItem, release string, counts func(s *Signature) bool) *Signature {
	for i := range p.Signatures {
		s := &p.Signatures[i]
		switch {
		case s.Release != release:
		case it.Status == CannotTell && it.Cause != "" && steady(it.Cause) == steady(s.Cause) && s.Playbook == b.Hash,
			s.Item == it.ID && (release != b.Release.Version || s.Playbook == "" || s.Playbook == b.Hash && steady(s.Evidence) == steady(it.Evidence)):
			if counts(s) {
				return s
			}
		}
	}
	return nil
}

// SignOff notes on an item who signed it off for a release. A sign-off from before the
// rollback in r no longer counts: the item is open again, and says why.
func (p Preflight) SignOff(b *alerts.Playbook, r Rollout, it *PreflightItem, release string) {
	seen := *it
	it.Take(p.signed(b, seen, release, func(s *Signature) bool { return !r.Lapsed(*s) }))
	if it.Signed != nil || it.Status != CannotTell {
		return
	}
	if s := p.Signed(b, seen, release); s != nil {
		it.Evidence = strings.TrimSuffix(it.Evidence, unsigned)
		it.Lapsed = fmt.Sprintf("the sign-off by %s lapsed with the rollback of %s", s.By, s.Release)
	}
	if it.Owner == "" {
		it.Next = signNext(it.Next, SignCommand(b.Service, it.ID))
	}
}

// signNext adds to what may be done about an unknown item the command that signs it off.
func signNext(next, command string) string {
	const sign = "sign it off"
	switch {
	case next == "":
		return command
	case strings.HasSuffix(next, sign):
		return next + ": " + command
	}
	return next + ", or " + sign + ": " + command
}

// SignCommand is the command that signs an item off.
func SignCommand(service, item string) string {
	return fmt.Sprintf("backout preflight sign %s --service=%s --by=NAME --reason=WHY", item, service)
}

// unsteady is what differs from run to run though the same was seen: a connection's local
// port, in the errors of package net, and the time at which crypto/x509 found a certificate
// expired, or not valid yet.
var unsteady = regexp.MustCompile(`\S+->|current time \S+ is `)

// steady is a text without that.
func steady(text string) string { return unsteady.ReplaceAllString(text, "") }

// SignedBefore reports whether an item was signed off for a release, under any playbook.
func (p Preflight) SignedBefore(item, release string) bool {
	return slices.ContainsFunc(p.Signatures, func(s Signature) bool { return s.Item == item && s.Release == release })
}

// Sign adds a signature, replacing an earlier one of the same item and release; those of
// other releases are dropped, but for the one that is being rolled out, whose end may still
// wait for them.
func (p *Preflight) Sign(s Signature, out Rollout) {
	p.Signatures = slices.DeleteFunc(p.Signatures, func(old Signature) bool {
		if old.Release == s.Release {
			return old.Item == s.Item
		}
		return !out.Active() || old.Release != out.Release
	})
	p.Signatures = append(p.Signatures, s)
}

// LagResult judges a replica's lag.
func LagResult(lag, most time.Duration) Result {
	if lag < most {
		return Passed(fmt.Sprintf("the lag is %s", Span(lag)))
	}
	return Failed(fmt.Sprintf("the lag is %s; it must be below %s", Span(lag), Span(most)), "check what keeps the replica busy")
}

// LookCheck turns a look at an action's target into a Result, and asks whether its
// credentials permit the change, where the action can tell.
func LookCheck(ctx context.Context, a Action) Result {
	look := func(ctx context.Context) Result { return lookResult(ctx, a) }
	if p, ok := a.(Permitted); ok {
		return Trial(ctx, look, p.Permitted)
	}
	return look(ctx)
}

func lookResult(ctx context.Context, a Action) Result {
	look, err := a.Look(ctx, "preflight")
	if err != nil {
		return ResultOf(err)
	}
	if look.Position == HalfWay {
		return Failed("the target is half-way between two states", "bring it into one of the two by hand")
	}
	return Passed("the target can be acted on; it is " + string(look.Position))
}

// Describe names a rule by what tells it from its neighbours.
func (r LoadedRule) Describe() string {
	for _, label := range []string{"trigger", "indicator"} {
		if v := r.Labels[label]; v != "" {
			return fmt.Sprintf("%s (%s %s)", r.Name, label, v)
		}
	}
	return r.Name
}

// PromQL parses expressions as Prometheus does by default.
func PromQL() parser.Parser { return parser.NewParser(parser.Options{}) }

// Detail is what the audit log has of a run.
func (r *PreflightRun) Detail() map[string]any {
	count := map[Status]int64{}
	failed, unknown := []any{}, []any{}
	for _, it := range r.Items {
		count[it.Status]++
		switch it.Status {
		case Fail:
			failed = append(failed, map[string]any{"item": it.ID, "evidence": it.Evidence})
		case CannotTell:
			unknown = append(unknown, map[string]any{"item": it.ID, "evidence": it.Evidence})
		}
	}
	return map[string]any{
		"what": "preflight", "release": r.Release, "playbook": r.Playbook, "reason": r.Reason,
		"passed": count[Pass], "failed": failed, "cannot_tell": unknown,
	}
}

// Take notes who signed off an item, which then counts as passed, unless it failed.
func (it *PreflightItem) Take(s *Signature) {
	it.Signed = s
	if s != nil && it.Owner != "" {
		it.Result = Passed("signed off by " + s.By + ": " + s.Reason)
	}
}

// SignRequest signs off one item of a preflight.
type SignRequest struct {
	Service string
	// Item is its id, or the part of it behind the slash where that is enough.
	Item string
	// By is who says so; Actor where it is "".
	By            string
	Actor, Reason string
}

// Lapsed reports whether a signature is from before the release was rolled back: what
// was signed off then has proved wrong.
func (r Rollout) Lapsed(s Signature) bool {
	ended := r.State == RolloutRolledBack || r.State == RolloutAborted
	return ended && r.Release == s.Release && r.StageSince != nil && !s.Time.After(*r.StageSince)
}

// DropLapsed deletes the signatures that lapsed with a rollback, as another rollout of the
// same release starts: they do not count for that one either.
func DropLapsed(tx Tx, r Rollout) error {
	kept, err := PreflightOf(tx, r.Service)
	if err != nil || !slices.ContainsFunc(kept.Signatures, r.Lapsed) {
		return err
	}
	kept.Signatures = slices.DeleteFunc(slices.Clone(kept.Signatures), r.Lapsed)
	return tx.PutPreflight(kept)
}
