package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/replicas"
)

const (
	// lookEvery is the pause between two looks at a rollout.
	lookEvery = 300 * time.Millisecond
	// defaultGrace is the API's, where a template has no terminationGracePeriodSeconds.
	defaultGrace = 30 * time.Second
)

// limit is how long the rollout of a workload may show no progress. An old pod that ignores SIGTERM takes
// its whole grace period, and a ready pod counts after minReadySeconds only.
func (a *change) limit(w *workload) time.Duration {
	grace := defaultGrace
	if g := w.Spec.Template.Spec.TerminationGracePeriodSeconds; g != nil {
		grace = time.Duration(*g) * time.Second
	}
	return replicas.Patience(a.target.Probe) + time.Duration(w.Spec.MinReadySeconds+w.Spec.Template.Spec.unprobed())*time.Second + grace
}

// unprobed is for how many seconds no probe asks a new pod whether it is ready.
func (p podSpec) unprobed() int {
	longest := 0
	for _, c := range p.Containers {
		delay := 0
		if c.StartupProbe != nil {
			delay = c.StartupProbe.InitialDelaySeconds
		}
		if c.ReadinessProbe != nil { // its delay begins with the container's start too
			delay = max(delay, c.ReadinessProbe.InitialDelaySeconds)
		}
		longest = max(longest, delay)
	}
	return longest
}

// rolled reports whether every pod is of the present template and available, as kubectl
// rollout status does, or how far it is.
func (s *state) rolled() (bool, string) {
	want, st := s.replicas(), s.w.Status
	sets := s.t.Kind() == "statefulset"
	switch {
	case st.ObservedGeneration < s.w.Metadata.Generation:
		return false, "no controller has seen the change yet"
	case sets && st.UpdateRevision != st.CurrentRevision, st.UpdatedReplicas < want:
		return false, fmt.Sprintf("%d of %d pods updated", st.UpdatedReplicas, want)
	case st.Replicas > st.UpdatedReplicas:
		return false, fmt.Sprintf("%d old pods left", st.Replicas-st.UpdatedReplicas)
	case st.AvailableReplicas < st.UpdatedReplicas:
		return false, fmt.Sprintf("%d of %d pods available", st.AvailableReplicas, want)
	}
	return true, ""
}

// brokenReasons are why a container waits that waiting does not cure.
var brokenReasons = []string{
	"CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}

// broken says why a pod does not start, or returns nil.
func (p pod) broken() error {
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && slices.Contains(brokenReasons, w.Reason) {
			exit := ""
			if t := c.LastState.Terminated; t != nil {
				exit = fmt.Sprintf(", last exit status %d", t.ExitCode)
			}
			return fmt.Errorf("pod %s does not start: container %s waits: %s%s (%s)", p.Metadata.Name, c.Name, w.Reason, exit, w.Message)
		}
	}
	return nil
}

// why says what a pod that is not ready waits for.
func (p pod) why() string {
	for _, c := range p.Status.Conditions {
		if c.Type == "PodScheduled" && c.Status == "False" {
			return c.Reason + ": " + c.Message
		}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil {
			return "container " + c.Name + ": " + w.Reason
		}
	}
	return "not ready"
}

// roll waits until every pod has the field's value and is available. It ends early where
// a new pod does not start, where the next one takes longer than the probe's timeout and the
// workload's own waiting times together, and where somebody changes the field. Where that was not seen in the end, the error
// is remediation.InDoubt. An undo goes back to what was: no pod of the
// operation is left then, and as many are ready as before.
func (a *change) roll(ctx context.Context, was *snapshot) error {
	var last, told string
	var unseen error
	progress, limit := time.Now(), a.limit(&workload{})
	for {
		s, err := a.see(ctx)
		switch {
		case err == nil:
			limit = a.limit(&s.w)
			done, stands, rerr := a.stands(ctx, s, was)
			if done || rerr != nil && !jsonhttp.Silent(rerr) {
				return rerr
			}
			if rerr == nil || ctx.Err() == nil {
				unseen = rerr
			}
			if stands != last {
				last, progress = stands, time.Now()
			}
			told = stands
		case ctx.Err() != nil && told != "": // the time ended in mid-question
		case jsonhttp.Silent(err): // it may be restarted
			unseen, progress = err, time.Now()
		case jsonhttp.Answered(err) == http.StatusUnauthorized || jsonhttp.Answered(err) == http.StatusForbidden: // so it says while it starts, too
			unseen = err
		default:
			return err
		}
		if time.Since(progress) > limit {
			if unseen != nil {
				return remediation.InDoubt(unseen)
			}
			return fmt.Errorf("%s makes no progress in %s: %s", s.place, remediation.Span(limit), told)
		}
		if !jsonhttp.Wait(ctx, lookEvery) {
			err := errors.Join(fmt.Errorf("wait for the rollout of %s: %s: %w", a.field.name(), told, ctx.Err()), unseen)
			if unseen == nil && told != "" {
				return err // it was seen, and not finished in its time
			}
			return remediation.InDoubt(err)
		}
	}
}

// blocking names the pod that a StatefulSet's controller waits for before it does anything else; "" where it waits for none,
// or for one that is missing or being deleted. It goes through the pods from the lowest ordinal up, and stops at the first
// that is missing, being deleted, not ready or not available; only then does it delete pods of an older revision, from the
// highest ordinal down. So deleting any other pod would lose one more, which it does not make again. With
// podManagementPolicy Parallel it does not stop there, and deletes broken pods itself (updateStatefulSet and processReplica
// in Kubernetes' pkg/controller/statefulset/stateful_set_control.go).
func (s *state) blocking(all []pod) string {
	if s.t.Kind() != "statefulset" || s.w.Spec.PodManagementPolicy == "Parallel" {
		return ""
	}
	ready, lowest := 0, -1
	ordinals := map[int]pod{}
	for _, p := range all {
		n, err := strconv.Atoi(strings.TrimPrefix(p.Metadata.Name, s.t.Name()+"-"))
		if err != nil {
			return ""
		}
		if ordinals[n] = p; p.ready() {
			ready++
		}
		if (!p.ready() || p.gone()) && (lowest < 0 || n < lowest) {
			lowest = n
		}
	}
	for n := s.w.Spec.Ordinals.Start; n < lowest; n++ {
		if _, made := ordinals[n]; !made {
			return "" // it is made next
		}
	}
	if lowest < 0 || ready > s.w.Status.AvailableReplicas || ordinals[lowest].gone() {
		return ""
	}
	return ordinals[lowest].Metadata.Name
}

// stands judges a rollout once; progress says how far it is.
func (a *change) stands(ctx context.Context, s seen, was *snapshot) (done bool, progress string, err error) {
	value := &s.want
	if was != nil {
		value = was.Value
	}
	if !replicas.Same(s.now, value) || was == nil && s.stale() {
		return false, "", fmt.Errorf("%s: %s is %s, %w%s", s.place, a.field.name(), shown(s.now), errTaken, a.by(s.state))
	}
	if err := s.refuse(); err != nil {
		return false, "", err
	}
	done, progress = s.rolled()
	if done || s.w.Status.ObservedGeneration < s.w.Metadata.Generation {
		return done, progress, nil
	}
	all, err := s.allPods(ctx)
	if err != nil {
		return false, progress, err
	}
	pods := slices.DeleteFunc(slices.Clone(all), pod.gone)
	blocking := s.blocking(all)
	want, left, ready := s.started(value), 0, 0
	for _, p := range pods {
		has := a.field.inPod(s.state, p)
		ours := was != nil && has == s.started(&was.To)
		if s.cm != nil { // a pod has the hash of a ConfigMap, not the value
			ours = was != nil && has != want
		}
		if ours {
			left++
		}
		if p.ready() {
			ready++
		}
	}
	if was != nil && left == 0 && ready >= was.Ready {
		return true, progress, nil
	}
	for _, p := range pods {
		fresh := a.field.inPod(s.state, p) == want
		broken := p.broken()
		switch {
		case broken != nil && fresh && left == 0:
			return false, progress, broken
		case broken != nil && p.Metadata.Name == blocking && p.Metadata.Labels["controller-revision-hash"] != s.w.Status.UpdateRevision:
			// The StatefulSet would wait for it forever: kubernetes#67250.
			if err := s.deletePod(ctx, p); err != nil {
				return false, progress, err
			}
		case fresh && !p.ready():
			progress += "; pod " + p.Metadata.Name + " " + p.why()
		}
	}
	return false, progress, nil
}
