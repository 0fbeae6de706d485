package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// Images changes which image a service runs; Runtimes does it where the service runs.
type Images interface {
	// ImageRetag returns the action that puts image back to the tag previous, and
	// recreates the service; image "" is the service's own. It looks at nothing outside.
	ImageRetag(target alerts.Target, image, previous string) (remediation.Action, error)
	// Runs says why not every running replica runs image:version, or returns
	// nil; image "" is the service's own. The error is a *remediation.VersionError where
	// that was seen.
	Runs(ctx context.Context, target alerts.Target, image, version string) error
	// Smoke runs one smoke check, once; the error says what failed.
	Smoke(ctx context.Context, check alerts.SmokeCheck) error
}

// Pins are Images whose version a variable of the project's env file names, as in
// image: shop:${TAG}.
type Pins interface {
	// ImagePin returns the action that writes previous into the variable and
	// recreates the service. It looks at nothing outside.
	ImagePin(target alerts.Target, variable, previous string) (remediation.Action, error)
}

// imageRetag restores the previous version's image: under the latest tag that the
// compose service runs, or by the variable that holds its tag.
type imageRetag struct{ images Images }

type imageRetagParams struct {
	// Image is the repository whose latest tag is moved, without a tag. In Kubernetes and
	// Swarm the container gets image:previous. Default: the service's own.
	Image string `yaml:"image"`
	// Variable is the variable of the env file that holds the image's tag, such as TAG in
	// image: shop:${TAG}. Only in compose projects. Default: the latest tag is moved.
	Variable string `yaml:"variable"`
	// Previous is the tag to go back to. Default: the release's previous.
	Previous string `yaml:"previous"`
}

var (
	imageName = regexp.MustCompile(`^[a-z0-9][a-z0-9._/-]*(:[0-9]+/[a-z0-9._/-]+)?$`)
	imageVar  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	imageTag  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

func (imageRetag) Name() string      { return "image_retag" }
func (imageRetag) Risk() alerts.Risk { return alerts.Disruptive }
func (imageRetag) NewParams() any    { return &imageRetagParams{} }

func (imageRetag) CheckParams(pb *alerts.Playbook, params any) []alerts.ParamProblem {
	p := params.(*imageRetagParams)
	var problems []alerts.ParamProblem
	if p.Image != "" && !imageName.MatchString(p.Image) {
		problems = append(problems, alerts.ParamProblem{Key: "image", Problem: fmt.Sprintf("invalid image name %q (without a tag)", p.Image), Try: "image: social-intel"})
	}
	switch {
	case p.Variable != "" && !pb.Target.InCompose():
		problems = append(problems, alerts.ParamProblem{Key: "variable", Problem: "variable is for compose projects: in Kubernetes and Swarm the image is set by its name", Try: "remove variable"})
	case p.Variable != "" && !imageVar.MatchString(p.Variable):
		problems = append(problems, alerts.ParamProblem{Key: "variable", Problem: fmt.Sprintf("invalid variable name %q", p.Variable), Try: "variable: TAG, where the compose file has image: shop:${TAG}"})
	case p.Variable != "" && p.Image != "":
		problems = append(problems, alerts.ParamProblem{Key: "image", Problem: "image moves its latest tag, and variable sets the tag: they exclude each other", Try: "remove image"})
	}
	if p.Previous != "" && !imageTag.MatchString(p.Previous) {
		problems = append(problems, alerts.ParamProblem{Key: "previous", Problem: fmt.Sprintf("%q is not a tag", p.Previous), Try: "previous: v1.0.0"})
	}
	return problems
}

// Smoke implements remediation.SmokeTester.
func (k imageRetag) Smoke(ctx context.Context, check alerts.SmokeCheck) error {
	return k.images.Smoke(ctx, check)
}

func (imageRetag) Target(pb *alerts.Playbook, _ any) string {
	return remediation.TargetName(pb.Target, "image")
}

// Version implements remediation.VersionSetter.
func (imageRetag) Version(pb *alerts.Playbook, params any) string {
	return cmp.Or(params.(*imageRetagParams).Previous, pb.Release.Previous)
}

func (k imageRetag) Bind(pb *alerts.Playbook, params any) (remediation.Action, error) {
	p := params.(*imageRetagParams)
	previous := k.Version(pb, params)
	var a remediation.Action
	var err error
	if p.Variable == "" {
		a, err = k.images.ImageRetag(pb.Target, p.Image, previous)
	} else if pins, ok := k.images.(Pins); ok {
		a, err = pins.ImagePin(pb.Target, p.Variable, previous)
	} else {
		err = errors.New("the service's runtime has no support for variables")
	}
	if err != nil {
		return nil, fmt.Errorf("image_retag: %w", err)
	}
	return a, nil
}
