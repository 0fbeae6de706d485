//go:build !unix

package store

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock that ends with the process, two of them
// could write one database.
func lockFile(string) (*os.File, error) {
	return nil, errors.New("lock database: this system has no flock; try: run backout on Linux")
}
