package memory_test

import (
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/store/memory"
	"github.com/locotoki/backout/remediation/store/storetest"
)

func TestMemoryIsAStore(t *testing.T) {
	kept := map[string]*memory.Store{}
	storetest.Run(t, func(_ *testing.T, dir string) remediation.Store {
		if s := kept[dir]; s != nil {
			kept[dir] = memory.Again(s)
		} else {
			kept[dir] = memory.New()
		}
		return kept[dir]
	})
}
