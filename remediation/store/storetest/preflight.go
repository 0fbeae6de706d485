package storetest

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/locotoki/backout/remediation"
)

var preflightTests = []test{
	{"a preflight is kept by service as it was put, the last one wins", func(s *suite) {
		of := func(service, evidence string) remediation.Preflight {
			signed := remediation.Signature{Item: "team/dba", Release: "v2", By: "Ada", Actor: "oncall", Reason: "a\x00b <&> \u2028", Time: noon}
			return remediation.Preflight{Service: service, Signatures: []remediation.Signature{signed}, Run: &remediation.PreflightRun{
				Release: "v2", Playbook: "hash", By: "oncall", Reason: "r", Started: noon, Finished: noon.Add(1),
				Items: []remediation.PreflightItem{{
					ID: "rules/loaded", Name: "n", Owner: "o", Before: true, Signed: &signed,
					Result: remediation.Result{Status: remediation.CannotTell, Evidence: evidence, Next: "x"},
				}},
			}}
		}
		want := of("shop\x00", "second")
		s.update(func(tx remediation.Tx) error {
			if _, err := tx.Preflight("shop\x00"); !errors.Is(err, remediation.ErrNotFound) {
				return fmt.Errorf("before the first: %w", err)
			}
			return errors.Join(tx.PutPreflight(of("shop\x00", "first")), tx.PutPreflight(want), tx.PutPreflight(remediation.Preflight{Service: "shop"}))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Preflight("shop\x00")
			if err == nil && !reflect.DeepEqual(got, want) {
				err = fmt.Errorf("got %+v, want %+v", got, want)
			}
			return err
		})
	}},
}
