package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/locotoki/backout/remediation"
)

// secretBytes is the length of a secret that replicas share.
const secretBytes = 32

// Secret returns the random bytes that are kept under a name for all replicas, and makes
// them the first time.
func (e *Engine) Secret(ctx context.Context, name string) (secret []byte, err error) {
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		secret, err = tx.Kept("secret/" + name)
		if !errors.Is(err, remediation.ErrNotFound) {
			return err
		}
		secret = make([]byte, secretBytes)
		_, _ = rand.Read(secret) // never fails: crypto/rand ends the program instead
		return tx.PutKept("secret/"+name, secret)
	})
	if err != nil {
		return nil, fmt.Errorf("read the secret %s: %w", name, err)
	}
	return secret, nil
}

// Once reports whether a key of a kind comes for the first time, to whichever replica, and
// remembers it for a time, with at most limit others.
func (e *Engine) Once(ctx context.Context, kind, key string, keep time.Duration, limit int) (first bool, err error) {
	err = e.Store.Update(ctx, func(tx remediation.Tx) error {
		now, err := tx.Now()
		if err != nil {
			return err
		}
		first, err = tx.Once(kind, key, now.Add(keep), limit)
		return err
	})
	return first, err
}
