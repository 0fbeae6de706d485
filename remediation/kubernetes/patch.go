package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

const (
	// markAnnotation holds, as JSON, which operation set which field of the object.
	markAnnotation = "backout.dev/operation"
	// hashAnnotation, of the pods' template, is the hash of the ConfigMap that its pods
	// started with.
	hashAnnotation = "backout.dev/flags"
	// fluxAnnotation pauses Flux's reconciliation of one object.
	fluxAnnotation = "kustomize.toolkit.fluxcd.io/reconcile"
	fluxDisabled   = "disabled"
	// fluxMark is the mark of a pause that is ours to take away.
	fluxMark = "flux"
)

// patch is a JSON patch: all of it is applied, or nothing.
type patch []operation

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// test demands a value; nil demands that there is none.
func (p *patch) test(path string, value any) { *p = append(*p, operation{"test", path, value}) }

// add sets a member of a mapping, whether or not it is there, or inserts into a list.
func (p *patch) add(path string, value any) { *p = append(*p, operation{"add", path, value}) }

func (p *patch) remove(path string) { *p = append(*p, operation{Op: "remove", Path: path}) }

// text is a string's value as the API stores it: an empty one is left out.
func text(v string) any {
	if v == "" {
		return nil
	}
	return v
}

// annotate replaces annotations, each only if it is what it was; nil removes one. at is
// the path of the metadata.
func (p *patch) annotate(at string, has map[string]string, to map[string]*string) {
	at += "/annotations"
	created := len(has) > 0
	for _, name := range []string{markAnnotation, hashAnnotation, fluxAnnotation} {
		v, touched := to[name]
		was, had := has[name]
		if !touched || v == nil && !had || v != nil && had && *v == was {
			continue
		}
		if !created {
			p.test(at, nil)
			p.add(at, map[string]string{})
			created = true
		}
		path := at + "/" + strings.ReplaceAll(name, "/", "~1")
		if had {
			p.test(path, was)
		} else {
			p.test(path, nil)
		}
		if v == nil {
			p.remove(path)
		} else {
			p.add(path, *v)
		}
	}
}

// marks are the operations of an object, by field.
func marks(m meta) map[string]string {
	all := map[string]string{}
	if err := json.Unmarshal([]byte(m.Annotations[markAnnotation]), &all); err != nil {
		return map[string]string{} // nobody else's annotation to begin with
	}
	return all
}

// mark marks a field as an operation's, and pauses Flux if gitops says so. "" as
// the operation takes the mark away, and with the last one the pause that was ours.
func (p *patch) mark(m meta, gitops *alerts.GitOps, field, op string) {
	all, to := marks(m), map[string]*string{}
	before := maps.Clone(all)
	if op != "" {
		all[field] = op
		if gitops != nil && gitops.Flux == alerts.FluxPause && m.Annotations[fluxAnnotation] != fluxDisabled {
			all[fluxMark] = fluxDisabled
			to[fluxAnnotation] = new(string)
			*to[fluxAnnotation] = fluxDisabled
		}
	} else if delete(all, field); len(all) == 1 && all[fluxMark] != "" {
		delete(all, fluxMark)
		to[fluxAnnotation] = nil
	}
	switch {
	case maps.Equal(all, before):
		return
	case len(all) == 0:
		to[markAnnotation] = nil
	default:
		raw, _ := json.Marshal(all) // a mapping of strings
		value := string(raw)
		to[markAnnotation] = &value
	}
	p.annotate("/metadata", m.Annotations, to)
}

// send sends a patch of an object; into gets the object as it is then.
func (p place) send(ctx context.Context, path, what, query string, list patch, into any) error {
	err := p.do(ctx, http.MethodPatch, path+"?fieldManager="+fieldManager+query, jsonPatch, list, into)
	if jsonhttp.Answered(err) == http.StatusForbidden {
		err = hint.Add(err, "kubectl auth can-i patch %s -n %s, and bind backout's Role", strings.Fields(what)[0], p.t.Namespace)
	}
	if err != nil {
		return fmt.Errorf("patch %s: %w", what, err)
	}
	return nil
}

// changedMeanwhile reports whether a patch was refused because a test failed or someone
// else wrote at the same moment; also what validation refuses, which stays refused.
func changedMeanwhile(err error) bool {
	code := jsonhttp.Answered(err)
	return code == http.StatusUnprocessableEntity || code == http.StatusConflict
}
