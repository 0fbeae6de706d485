package main

import (
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What is used as long as nothing is wrong, as shares of what there is.
const (
	usualCPU         = 0.3
	usualMemory      = 0.4
	usualDatabaseCPU = 0.2
)

// What the container may use.
const (
	memoryLimit = 256 << 20
	cpuQuota    = 50_000
	cpuPeriod   = 100_000
)

// usage returns what cAdvisor would say of this container and node_exporter of the
// database's host, by the names that those give it: neither runs here, and nothing
// is used up for a demonstration.
func (s *service) usage() ([]prometheus.Collector, error) {
	id, err := os.Hostname() // the container's id
	if err != nil {
		return nil, err
	}
	labels := prometheus.Labels{"id": "/docker/" + id}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
	}
	cpu := newMeter(0, func() float64 { return s.used(s.broken.Load().CPU, usualCPU) * cpuQuota / cpuPeriod })
	// The database's host does not start anew with this container.
	idled := float64(time.Now().UnixMilli()) / 1000 * (1 - usualDatabaseCPU)
	idle := newMeter(idled, func() float64 { return 1 - s.used(s.broken.Load().DatabaseCPU, usualDatabaseCPU) })
	return []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "container_cpu_usage_seconds_total", Help: "CPU time that was used.", ConstLabels: labels,
		}, cpu.read),
		gauge("container_spec_cpu_quota", "CPU time that may be used in a period.", func() float64 { return cpuQuota }),
		gauge("container_spec_cpu_period", "Length of a period.", func() float64 { return cpuPeriod }),
		gauge("container_memory_working_set_bytes", "Memory that is used.", func() float64 {
			return s.used(s.broken.Load().Memory, usualMemory) * memoryLimit
		}),
		gauge("container_spec_memory_limit_bytes", "Memory that may be used.", func() float64 { return memoryLimit }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "node_cpu_seconds_total", Help: "Time of the database's processor.", ConstLabels: prometheus.Labels{"cpu": "0", "mode": "idle"},
		}, idle.read),
	}, nil
}

// used is what is used of something: as usual, or what the breakage says where it
// concerns this version with this flag.
func (s *service) used(broken, usual float64) float64 {
	b := s.broken.Load()
	if broken > 0 && (s.share > 0 || b.DespiteFlag) && (b.Version == "" || b.Version == s.version) {
		return broken
	}
	return usual
}

// meter adds up what is used in a second, up to the moment it is read.
type meter struct {
	rate func() float64

	mu    sync.Mutex
	at    time.Time
	total float64
}

func newMeter(total float64, rate func() float64) *meter {
	return &meter{rate: rate, at: time.Now(), total: total}
}

func (m *meter) read() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.total += m.rate() * now.Sub(m.at).Seconds()
	m.at = now
	return m.total
}
