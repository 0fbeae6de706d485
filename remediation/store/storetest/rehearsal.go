package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/remediation"
)

var rehearsalTests = []test{
	{"rehearsals are kept by service and plan as they were put, the last one wins", func(s *suite) {
		of := func(service, plan, evidence string) remediation.Rehearsal {
			part := remediation.RehearsedPart{
				Result: remediation.Result{Status: remediation.CannotTell, Evidence: evidence, Next: "x"}, Took: model.Duration(12345 * time.Millisecond),
			}
			return remediation.Rehearsal{
				Service: service, Plan: plan, Release: "v2", Playbook: "hash", By: "oncall", Reason: "a\x00b <&> \u2028",
				Started: noon, Finished: noon.Add(1), Status: remediation.CannotTell, Drill: part, Incidents: []string{"inc-1"},
				Steps: []remediation.RehearsedStep{{ID: "1-flag_off", Action: "flag_off", Target: "t", Index: 3, Tried: true, RehearsedPart: part}},
			}
		}
		want := []remediation.Rehearsal{of("shop\x00", "ladder", "second"), of("shop\x00", "longer", "only")}
		s.update(func(tx remediation.Tx) error {
			if got, err := tx.Rehearsals("shop\x00"); err != nil || len(got) != 0 {
				return fmt.Errorf("before the first: %v, %w", got, err)
			}
			return errors.Join(tx.PutRehearsal(want[1]), tx.PutRehearsal(of("shop\x00", "ladder", "first")), tx.PutRehearsal(want[0]),
				tx.PutRehearsal(of("shop", "ladder", "another service's")))
		})
		s.both(func(tx remediation.Tx) error {
			got, err := tx.Rehearsals("shop\x00")
			if err == nil && !reflect.DeepEqual(got, want) {
				err = fmt.Errorf("got %+v, want %+v", got, want)
			}
			return err
		})
	}},
}
