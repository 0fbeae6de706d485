package memory

// Again is a store with what a closed one holds, as if it had been kept in a file.
func Again(s *Store) *Store {
	again := New()
	again.latest.Store(s.latest.Load())
	return again
}
