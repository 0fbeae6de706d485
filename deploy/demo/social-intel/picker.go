package main

import "sync"

// picker picks a share of what passes, evenly: of 0.1 it picks each tenth. Chance
// would make a share that lies close to a threshold cross it now and then.
type picker struct {
	mu   sync.Mutex
	owed float64
}

// picks reports whether the next one belongs to the share p, from 0 to 1.
func (s *picker) picks(p float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed += p
	if s.owed < 1 {
		return false
	}
	s.owed--
	return true
}
