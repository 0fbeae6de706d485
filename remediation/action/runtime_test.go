package action

import (
	"context"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// noRuntime notes that it was asked.
type noRuntime struct {
	noFlags
	noImages
	other int
}

func (n *noRuntime) Verify(context.Context, alerts.Target, string, string) ([]remediation.Check, error) {
	n.other++
	return nil, nil
}

func (n *noRuntime) Running(context.Context, *alerts.Playbook) (remediation.Running, error) {
	n.other++
	return remediation.Running{}, nil
}

func (n *noRuntime) Serves(context.Context, alerts.Target, alerts.Flag) error {
	n.other++
	return nil
}

func (n *noRuntime) Runs(context.Context, alerts.Target, string, string) error {
	n.other++
	return nil
}

func inKubernetes() *alerts.Playbook {
	pb := playbook()
	pb.Target = alerts.Target{Kubernetes: &alerts.KubernetesTarget{Context: "prod", Namespace: "shop", StatefulSet: "web", Container: "app"}}
	return pb
}

func inSwarm() *alerts.Playbook {
	pb := playbook()
	pb.Target = alerts.Target{Swarm: &alerts.SwarmTarget{Service: "shop_web"}}
	return pb
}

func TestThePlaybooksTargetChoosesWhatIsAsked(t *testing.T) {
	for prefix, pb := range map[string]*alerts.Playbook{"compose:/srv/social-intel/web:": playbook(), "kubernetes:prod/shop/statefulset/web:": inKubernetes(), "swarm:shop_web:": inSwarm()} {
		compose, cluster, swarm := &noRuntime{}, &noRuntime{}, &noRuntime{}
		r := Runtimes{compose, cluster, swarm}
		asked, idle := compose, cluster
		switch {
		case pb.Target.Kubernetes != nil:
			asked, idle = cluster, swarm
		case pb.Target.Swarm != nil:
			asked, idle = swarm, compose
		}
		for _, k := range Kinds(Tools{Flags: r, Images: r})[1:3] {
			params, part := k.NewParams(), "image"
			if p, ok := params.(*flagOffParams); ok {
				p.Flag, part = "A", "A"
			}
			if _, err := k.Bind(pb, params); err != nil {
				t.Error(err)
			}
			if got := k.Target(pb, params); got != prefix+part {
				t.Errorf("target %s, want %s", got, prefix+part)
			}
		}
		if err := r.Runs(t.Context(), pb.Target, "", "v1"); err != nil {
			t.Error(err)
		}
		if _, err := r.Verify(t.Context(), pb.Target, "", "v1"); err != nil {
			t.Error(err)
		}
		if _, err := r.Running(t.Context(), pb); err != nil {
			t.Error(err)
		}
		if len(asked.noFlags.asked) != 1 || len(asked.noImages.asked) != 3 || asked.other != 3 || len(idle.noFlags.asked) != 0 || len(idle.noImages.asked) != 0 || idle.other != 0 {
			t.Errorf("%s: asked %+v, and the other one %+v", prefix, asked, idle)
		}
	}
}

func TestNoVariableHoldsTheTagInKubernetes(t *testing.T) {
	params := &imageRetagParams{Variable: "TAG"}
	r := Runtimes{&noRuntime{}, &noRuntime{}, &noRuntime{}}
	problems := imageRetag{r}.CheckParams(inKubernetes(), params)
	if len(problems) != 1 || problems[0].Key != "variable" || !strings.Contains(problems[0].Problem, "the image is set by its name") || len((imageRetag{r}).CheckParams(inSwarm(), params)) != 1 {
		t.Errorf("%+v", problems)
	}
	if _, err := (imageRetag{r}).Bind(inKubernetes(), params); err == nil || !strings.Contains(err.Error(), "remove variable from the step") {
		t.Error(err)
	}
	if problems := (imageRetag{r}).CheckParams(playbook(), params); len(problems) != 0 {
		t.Errorf("in a compose project: %+v", problems)
	}
}
