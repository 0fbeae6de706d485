package backtest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// keptFor is for how long a cache keeps a chunk.
const keptFor = 40 * 24 * time.Hour

// Cache keeps chunks of values in a folder, each in a file named by what was asked, so
// that a backtest which was interrupted goes on where it was. A file that cannot be read
// is as good as none. The nil *Cache keeps nothing.
type Cache struct {
	dir string

	// memory stands for the folder, where set; size is what it holds, in bytes.
	mu     sync.Mutex
	memory map[string][]byte
	size   int
}

// maxMemory bounds a cache in memory, in bytes: more than a week of a large playbook.
const maxMemory = 64 << 20

// NewMemoryCache returns a cache that ends with the process.
func NewMemoryCache() *Cache { return &Cache{memory: map[string][]byte{}} }

// load returns what is kept under a key.
func (c *Cache) load(key string) ([]byte, error) {
	if c.memory == nil {
		return os.ReadFile(c.file(key))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if content, ok := c.memory[key]; ok {
		return content, nil
	}
	return nil, fs.ErrNotExist
}

// hold keeps content in memory, alone where it would be too much.
func (c *Cache) hold(key string, content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := cap(c.memory[key])
	if was == 0 {
		c.size += len(key)
	}
	if c.size += cap(content) - was; c.size > maxMemory {
		clear(c.memory)
		c.size = len(key) + cap(content)
	}
	c.memory[key] = content
}

// OpenCache returns the cache in a folder, which it creates, without the chunks that
// are too old.
func OpenCache(dir string, now time.Time) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the cache of chunks: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the cache of chunks: %w", err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || filepath.Ext(f.Name()) != chunkSuffix || now.Sub(info.ModTime()) < keptFor {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("clear the cache of chunks: %w", err)
		}
	}
	return &Cache{dir: dir}, nil
}

const chunkSuffix = ".chunk"

// keyOf names what was asked, of whom.
func keyOf(source, expr string, g grid) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "1\x00%s\x00%s\x00%s\x00%d\x00%d", source, expr, g.step, g.first, g.last))
	return hex.EncodeToString(sum[:])
}

func (c *Cache) file(key string) string { return filepath.Join(c.dir, key+chunkSuffix) }

// read fills values, and reports whether it could.
func (c *Cache) read(key string, values []float64) bool {
	if c == nil {
		return false
	}
	content, err := c.load(key)
	if err != nil {
		return false
	}
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return false
	}
	read := make([]float64, len(values))
	if binary.Read(z, binary.LittleEndian, read) != nil {
		return false
	}
	if n, err := z.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) { // the check sum is at the end
		return false
	}
	copy(values, read)
	return true
}

// write keeps values, atomically.
func (c *Cache) write(key string, values []float64) (err error) {
	if c == nil {
		return nil
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := errors.Join(binary.Write(z, binary.LittleEndian, values), z.Close()); err != nil {
		return err
	}
	if c.memory != nil {
		c.hold(key, b.Bytes())
		return nil
	}
	f, err := os.CreateTemp(c.dir, ".chunk.*")
	if err != nil {
		return fmt.Errorf("cache of chunks: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cache of chunks: %w", errors.Join(err, os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), c.file(key))
}
