package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/probe"
	"github.com/locotoki/backout/remediation/replicas"
)

// change is the action that gives one field of a target a value and rolls that out.
type change struct {
	c      *Client
	target alerts.Target
	field  field
	// want is the value, given what the field's is now.
	want func(now *string) string
	// exact: what somebody changed since the intent is refused. Otherwise it is changed
	// all the same.
	exact bool
	// answers asks one pod, at the address of its port, for what was changed.
	answers func(ctx context.Context, address string) error
	// also is asked of the service once all pods answer; nil: nothing.
	also func(ctx context.Context) error
}

// snapshot is what an intent records.
type snapshot struct {
	Object string `json:"object"`
	Field  string `json:"field"`
	// Value is what the field was; absent: there was none. To is what it becomes.
	Value *string `json:"value,omitempty"`
	To    string  `json:"to"`
	// Template is the hash of the ConfigMap in the pods' template; absent: there was none.
	Template *string `json:"template,omitempty"`
	// Mark is the earlier operation that had set the field, and TemplateMark the one that had rolled the
	// ConfigMap out; absent: there was none. An undo puts them back.
	Mark         string `json:"mark,omitempty"`
	TemplateMark string `json:"template_mark,omitempty"`
	// Ready is how many pods were ready.
	Ready int `json:"ready"`
}

// seen is a target and the field's value in it.
type seen struct {
	*state
	now  *string
	want string
}

func (a *change) see(ctx context.Context) (seen, error) {
	p, err := a.c.at(a.target.Kubernetes)
	if err != nil {
		return seen{}, err
	}
	s, err := p.read(ctx, holdsConfigMap(a.field))
	if err != nil {
		return seen{}, err
	}
	now, err := a.field.value(s)
	if err != nil {
		return seen{}, err
	}
	return seen{s, now, a.want(now)}, nil
}

// seeDecides is see, and refuses a field that does not decide, since something overrules it. An undo and a watch
// take see: what came in mid-operation must not keep what the operation changed.
func (a *change) seeDecides(ctx context.Context) (seen, error) {
	s, err := a.see(ctx)
	if err == nil {
		err = a.overruled(ctx, s)
	}
	return s, err
}

func (a *change) overruled(ctx context.Context, s seen) error {
	if f, ok := a.field.(inConfigMap); ok {
		return f.overruled(ctx, s.state, a.target.Probe.Flags != "")
	}
	return nil
}

// holder is the object that has the field.
func (s *state) holder() (m meta, path, what string) {
	if s.cm != nil {
		return s.cm.Metadata, s.configMapPath(s.t.Flags.ConfigMap), s.configMap()
	}
	return s.w.Metadata, s.workloadPath(), s.String()
}

// started is what a pod has that was started with a value of the field.
func (s *state) started(value *string) string {
	switch {
	case s.cm != nil:
		return "=" + s.w.Spec.Template.Metadata.Annotations[hashAnnotation]
	case value == nil:
		return ""
	}
	return "=" + *value
}

// stale reports that pods may have started before the ConfigMap became what it is.
func (s *state) stale() bool {
	return s.cm != nil && s.w.Spec.Template.Metadata.Annotations[hashAnnotation] != s.cm.hash()
}

func shown(v *string) string {
	if v == nil {
		return "not set"
	}
	return *v
}

// Look implements remediation.Action.
func (a *change) Look(ctx context.Context, op string) (remediation.Look, error) {
	s, err := a.see(ctx)
	if err == nil {
		err = s.refuse()
	}
	if err != nil {
		return remediation.Look{}, err
	}
	m, _, _ := s.holder()
	if marks(m)[a.field.key()] != op { // else it has begun, and may have to be undone
		if err := a.overruled(ctx, s); jsonhttp.Silent(err) {
			return remediation.Look{}, err
		} else if err != nil {
			return remediation.Look{}, remediation.Unfit(err)
		}
	}
	position := remediation.Untouched
	if rolled, _ := s.rolled(); replicas.Same(s.now, &s.want) {
		served := rolled && !s.stale()
		if served {
			denied, err := a.c.service(a.target).Denied(ctx, a.answers)
			if err != nil {
				return remediation.Look{}, err
			}
			served = !denied
		}
		switch {
		case served:
			position = remediation.Wanted
		case marks(m)[a.field.key()] != "": // else someone else set it
			position = remediation.HalfWay
		}
	}
	snap := snapshot{Object: s.String(), Field: a.field.name(), Value: s.now, To: s.want, Ready: s.w.Status.ReadyReplicas}
	if hash, ok := s.w.Spec.Template.Metadata.Annotations[hashAnnotation]; ok && s.cm != nil {
		snap.Template = &hash
	}
	snap.Mark = earlier(m, a.field, op)
	if s.cm != nil {
		snap.TemplateMark = earlier(s.w.Metadata, a.field, op)
	}
	raw, err := json.Marshal(snap)
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// earlier is the mark of another operation on the field; "" if there is none.
func earlier(m meta, f field, op string) string {
	if mark := marks(m)[f.key()]; mark != op {
		return mark
	}
	return ""
}

func (a *change) parse(before json.RawMessage) (was snapshot, err error) {
	if err = json.Unmarshal(before, &was); err != nil {
		return was, fmt.Errorf("snapshot of %s: %w", a.field.name(), err)
	}
	if was.Field != a.field.name() {
		return was, fmt.Errorf("snapshot of %s is one of %s", a.field.name(), was.Field)
	}
	return was, nil
}

// errTaken marks that somebody changed the field while it was being rolled out.
var errTaken = errors.New("changed by someone else meanwhile")

// Apply implements remediation.Action: one patch, and then its rollout. Of a flag that
// somebody sets back meanwhile, it is done again.
func (a *change) Apply(ctx context.Context, op string, before json.RawMessage) error {
	var was *snapshot
	if a.exact && len(before) > 0 {
		parsed, err := a.parse(before)
		if err != nil {
			return err
		}
		was = &parsed
	}
	var err error
	for range jsonhttp.Tries {
		if err = a.write(ctx, op, was); err != nil {
			return err
		}
		if err = a.roll(ctx, nil); !errors.Is(err, errTaken) || a.exact {
			break
		}
	}
	return err
}

// write patches until the field has its value and the pods' template the ConfigMap's
// hash.
func (a *change) write(ctx context.Context, op string, was *snapshot) error {
	return a.patch(ctx, a.seeDecides, func(s seen) ([]request, error) {
		if err := s.refuse(); err != nil {
			return nil, err
		}
		if was != nil && !replicas.Same(s.now, was.Value) && !replicas.Same(s.now, &s.want) {
			return nil, hint.Add(fmt.Errorf("%s: %s was %s and is now %s; nothing was changed", s.place, a.field.name(), shown(was.Value), shown(s.now)), "check its present state")
		}
		return a.forward(s, op), nil
	})
}

// request is one patch of one object.
type request struct {
	path, what string
	list       patch
}

// String is all of it.
func (r request) String() string {
	raw, err := json.Marshal(r.list)
	return r.path + string(raw) + fmt.Sprint(err)
}

// forward is the next patch towards the wanted value; none where it is there.
func (a *change) forward(s seen, op string) []request {
	var list patch
	switch m, path, what := s.holder(); {
	case !replicas.Same(s.now, &s.want):
		a.field.set(&list, s.state, &s.want)
		list.mark(m, s.t.GitOps, a.field.key(), op)
		return []request{{path, what, list}}
	case s.stale():
		return []request{s.rehash(a.field, s.t.GitOps, op, s.cm.hash())}
	}
	return nil
}

// rehash writes the ConfigMap's hash into the pods' template, which rolls it out; ""
// takes it away.
func (s *state) rehash(f field, gitops *alerts.GitOps, op, hash string) request {
	var list patch
	to := &hash
	if hash == "" {
		to = nil
	}
	list.annotate("/spec/template/metadata", s.w.Spec.Template.Metadata.Annotations, map[string]*string{hashAnnotation: to})
	list.mark(s.w.Metadata, gitops, f.key(), op)
	return request{s.workloadPath(), s.String(), list}
}

// patch sends what plan names, looking again by see after each patch, until it names nothing.
func (a *change) patch(ctx context.Context, see func(context.Context) (seen, error), plan func(seen) ([]request, error)) error {
	var last error
	var refused string // the patch that was refused
	for n, quiet := 0, 0; n < 2*jsonhttp.Tries; n++ {
		if n > 0 && last != nil {
			if quiet++; quiet >= jsonhttp.Tries || !jsonhttp.Wait(ctx, jsonhttp.Pause(quiet)) {
				break
			}
		}
		s, err := see(ctx)
		if err != nil && jsonhttp.Silent(err) {
			last = err
			continue
		}
		if err != nil {
			return err
		}
		list, err := plan(s)
		if err != nil || len(list) == 0 {
			return err
		}
		err = s.send(ctx, list[0].path, list[0].what, "", list[0].list, nil)
		switch {
		case err == nil:
			last = nil
		case changedMeanwhile(err):
			if list[0].String() == refused { // nothing changed: it is refused for good
				return err
			}
			refused, last = list[0].String(), nil
		case !jsonhttp.Silent(err):
			return err
		default: // it can be sent again: its tests fail if it has arrived
			last = err
		}
	}
	if last == nil {
		last = fmt.Errorf("%s changes all the time: %w", a.field.name(), errTaken)
	}
	if ctx.Err() != nil {
		last = errors.Join(last, ctx.Err())
	}
	return jsonhttp.InDoubt(last)
}

// Verify implements remediation.Action: all is rolled out, and each pod has the value and
// answers as it should.
func (a *change) Verify(ctx context.Context, _ string) error {
	if err := a.roll(ctx, nil); err != nil {
		return replicas.AsText(err)
	}
	err := replicas.Insist(ctx, replicas.Patience(a.target.Probe), func(ctx context.Context) error {
		s, err := a.seeDecides(ctx)
		if err != nil {
			return jsonhttp.Unseen(err)
		}
		pods, err := s.pods(ctx)
		if err != nil {
			return jsonhttp.Unseen(err)
		}
		if len(pods) == 0 {
			return fmt.Errorf("%s has no pods", s.place)
		}
		for _, p := range pods {
			if a.field.inPod(s.state, p) != s.started(&s.want) {
				return fmt.Errorf("pod %s was started with another value than %s for %s", p.Metadata.Name, s.want, a.field.name())
			}
			if err := a.c.service(a.target).Ask(ctx, a.c.replica(a.target, s.state, p), a.answers); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && a.also != nil {
		err = replicas.Insist(ctx, replicas.Patience(a.target.Probe), a.also)
	}
	return err
}

// Undo implements remediation.Action. It turns nothing on for a service of which nothing
// was ready: that serves nobody better.
func (a *change) Undo(ctx context.Context, op string, before json.RawMessage) error {
	return a.undo(ctx, op, before, false)
}

// Restore implements remediation.Restorer: a person wants the old value, whatever the
// service was like.
func (a *change) Restore(ctx context.Context, op string, before json.RawMessage) error {
	return a.undo(ctx, op, before, true)
}

func (a *change) undo(ctx context.Context, op string, before json.RawMessage, asked bool) error {
	was, err := a.parse(before)
	if err != nil {
		return err
	}
	if _, image := a.field.(imageField); !asked && !image && was.Ready == 0 && probe.Raises(was.To, shown(was.Value)) {
		a.c.log.Warn("flag not turned back on", "object", was.Object, "field", was.Field, "value", was.To, "why", "no pod was ready before")
		return nil
	}
	if err := a.patch(ctx, a.see, func(s seen) ([]request, error) { return a.backward(s, op, was) }); err != nil {
		return err
	}
	s, err := a.see(ctx)
	if err != nil {
		return jsonhttp.InDoubt(err)
	}
	if !replicas.Same(s.now, was.Value) || replicas.Same(was.Value, &was.To) || was.Ready == 0 {
		return nil // it is someone else's, or there is nothing to wait for
	}
	return a.roll(ctx, &was)
}

// backward is the next patch of the undo; none where no mark of the operation is left. An
// earlier mark returns with its value alone, and pauses nothing: a person may have removed
// the pause since.
func (a *change) backward(s seen, op string, was snapshot) ([]request, error) {
	key := a.field.key()
	m, path, what := s.holder()
	if marks(m)[key] == op {
		var list patch
		mark := ""
		if replicas.Same(s.now, &was.To) {
			a.field.set(&list, s.state, was.Value)
			mark = was.Mark
		}
		list.mark(m, nil, key, mark)
		return []request{{path, what, list}}, nil
	}
	if s.cm != nil && marks(s.w.Metadata)[key] == op {
		hash, mark := "", ""
		if was.Template != nil {
			hash = *was.Template
		}
		if replicas.Same(s.now, was.Value) {
			mark = was.TemplateMark
		}
		return []request{s.rehash(a.field, nil, mark, hash)}, nil
	}
	if replicas.Same(s.now, &was.To) && !replicas.Same(was.Value, &was.To) {
		return nil, hint.Add(fmt.Errorf("%s: %s is %s, and it is unknown whether backout set it", s.place, a.field.name(), shown(s.now)), "set it to %s by kubectl edit -n %s %s, if you want that", shown(was.Value), s.t.Namespace, s.resource())
	}
	return nil, nil
}

// resource is the holder of the field for kubectl.
func (s *state) resource() string {
	if s.cm != nil {
		return "configmap/" + s.t.Flags.ConfigMap
	}
	return s.t.Kind() + "/" + s.t.Name()
}

// deletePod deletes a pod that is the one that was seen.
func (s *state) deletePod(ctx context.Context, p pod) error {
	err := s.do(ctx, http.MethodDelete, s.podsPath()+"/"+p.Metadata.Name, "application/json",
		map[string]any{"preconditions": map[string]string{"uid": p.Metadata.UID}}, nil)
	if slices.Contains([]int{http.StatusNotFound, http.StatusConflict}, jsonhttp.Answered(err)) {
		return nil
	}
	if jsonhttp.Answered(err) == http.StatusForbidden {
		err = hint.Add(err, "kubectl delete pod -n %s %s, and bind backout's Role", s.t.Namespace, p.Metadata.Name)
	}
	if err != nil {
		return fmt.Errorf("delete pod %s: %w", p.Metadata.Name, err)
	}
	return nil
}
