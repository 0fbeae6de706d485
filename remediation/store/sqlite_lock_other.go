//go:build !unix

package store

import (
	"errors"
	"os"

	"github.com/locotoki/backout/hint"
)

// lockFile refuses: without a lock that ends with the process, two of them
// could write one database.
func lockFile(string) (*os.File, error) {
	return nil, hint.Add(errors.New("lock database: this system has no flock"), "run backout on Linux")
}
