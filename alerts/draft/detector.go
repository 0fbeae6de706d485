package draft

import "fmt"

// detector knows the metrics of one program that counts a service's requests. Queries
// have $own, $window and $min_volume, as a playbook has them.
type detector struct {
	// program is who exports the metrics.
	program string
	// present has a value if the service exports them.
	present string
	// requests counts all requests, failed those that failed.
	requests, failed string
	// histograms of the latency, the best first. One without buckets gives a mean.
	histograms []histogram
}

// histogram is the base name of a histogram, or of a summary.
type histogram struct {
	name, unit string
	noBuckets  bool // the service does not export them
}

// server is a detector of a program that counts requests in one metric with a label for
// the result: known matches the results that it writes, failed those of failures.
func server(program, counter, known, failed string, histograms ...histogram) detector {
	return detector{
		program: program, present: fmt.Sprintf("count(%s{$own,%s})", counter, known),
		requests: counter + "{$own}", failed: fmt.Sprintf("%s{$own,%s}", counter, failed), histograms: histograms,
	}
}

// A gRPC status that is the server's fault, not the caller's.
const grpcFailures = "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss"

// detectors are tried in this order. The first one is the guess without Prometheus.
func detectors() []detector {
	seconds := func(names ...string) (all []histogram) {
		for _, n := range names {
			all = append(all, histogram{name: n, unit: "seconds"})
		}
		return all
	}
	return []detector{
		server("client_golang", "http_requests_total", `code=~"[1-5].."`, `code=~"5.."`, seconds("http_request_duration_seconds", "request_duration_seconds")...),
		server("FastAPI's instrumentator", "http_requests_total", `status=~"[1-5]xx"`, `status="5xx"`, seconds("http_request_duration_highr_seconds", "http_request_duration_seconds")...),
		server("a Prometheus client", "http_requests_total", `status=~"[1-5].."`, `status=~"5.."`, seconds("http_request_duration_seconds")...),
		server("micrometer", "http_server_requests_seconds_count", `status=~"[1-5].."`, `status=~"5.."`, seconds("http_server_requests_seconds")...),
		server("OpenTelemetry", "http_server_request_duration_seconds_count", `http_response_status_code=~"[1-5].."`, `http_response_status_code=~"5.."`, seconds("http_server_request_duration_seconds")...),
		server("OpenTelemetry before 1.21", "http_server_duration_milliseconds_count", `http_status_code=~"[1-5].."`, `http_status_code=~"5.."`, histogram{name: "http_server_duration_milliseconds", unit: "milliseconds"}),
		server("gRPC", "grpc_server_handled_total", `grpc_code=~".+"`, `grpc_code=~"`+grpcFailures+`"`, seconds("grpc_server_handling_seconds")...),
		server("django-prometheus", "django_http_responses_total_by_status_total", `status=~"[1-5].."`, `status=~"5.."`,
			seconds("django_http_requests_latency_including_middlewares_seconds", "django_http_requests_latency_seconds_by_view_method")...),
	}
}

// alive is 1 while there are requests, in the time that over says.
func (d detector) alive(over string) string {
	return fmt.Sprintf("sum(increase(%s[%s])) > bool 0", d.requests, over)
}

// errorRate is the share of failed requests. Where none has failed, the counter of
// failures may not exist: then it is 0 of those that there are.
func (d detector) errorRate() string {
	return fmt.Sprintf("(sum(increase(%[2]s[$window])) or 0 * sum(increase(%[1]s[$window])))\n  / (sum(increase(%[1]s[$window])) >= $min_volume)", d.requests, d.failed)
}

// p95 is the 95th percentile of the latency.
func (h histogram) p95() string {
	return fmt.Sprintf("histogram_quantile(0.95, sum by (le) (rate(%[1]s_bucket{$own}[$window])))\n  and on () (sum(increase(%[1]s_count{$own}[$window])) >= $min_volume)", h.name)
}

// mean is the mean latency.
func (h histogram) mean() string {
	return fmt.Sprintf("sum(increase(%[1]s_sum{$own}[$window]))\n  / (sum(increase(%[1]s_count{$own}[$window])) >= $min_volume)", h.name)
}

// resource is what the service needs and can run out of. It warns people and rolls
// nothing back: a release is rarely the cause, and a rollback rarely the cure.
type resource struct {
	Program     string // who exports it
	Selector    string // the name of its selector, and its matchers without the job
	matchers    string
	metric      string // which job has it
	Name        string
	Description string
	Query       string  // RANGE stands for a range of four scrapes or more
	Above       float64 // the bound

	Matchers string // with the job
	Scrape   string // of the job, if it is longer than the service's
	Reason   string // where the bound is from
}

// resources are all that are looked for; SERVICE stands for the service's name.
func resources() []resource {
	return []resource{
		{
			Program: "cAdvisor", Selector: "containers", matchers: `container_label_com_docker_compose_service="SERVICE"`, metric: "container_memory_working_set_bytes",
			Name: "memory_usage", Description: "Memory of the busiest container, as a share of its limit",
			Query: "max(container_memory_working_set_bytes{$containers} / (container_spec_memory_limit_bytes{$containers} > 0))", Above: 0.85,
		},
		{
			Program: "cAdvisor", Selector: "containers", matchers: `container_label_com_docker_compose_service="SERVICE"`, metric: "container_cpu_usage_seconds_total",
			Name: "cpu_usage", Description: "CPU of the busiest container, as a share of its limit",
			Query: "max(sum by (id) (rate(container_cpu_usage_seconds_total{$containers}[RANGE])) / on (id) (container_spec_cpu_quota{$containers} / container_spec_cpu_period{$containers} > 0))", Above: 0.85,
		},
		{
			Program: "node_exporter", Selector: "hosts", metric: "node_cpu_seconds_total",
			Name: "host_cpu", Description: "CPU of the busiest host",
			Query: `max(1 - avg by (instance) (rate(node_cpu_seconds_total{$hosts,mode="idle"}[RANGE])))`, Above: 0.9,
		},
		{
			Program: "node_exporter", Selector: "hosts", metric: "node_filesystem_avail_bytes",
			Name: "host_disk", Description: "The fullest disk of a host",
			Query: `max(1 - node_filesystem_avail_bytes{$hosts,fstype!~"tmpfs|overlay|squashfs|ramfs"} / node_filesystem_size_bytes{$hosts,fstype!~"tmpfs|overlay|squashfs|ramfs"})`, Above: 0.85,
		},
		{
			Program: "postgres_exporter", Selector: "database", metric: "pg_stat_database_numbackends",
			Name: "database_connections", Description: "Connections of the database, as a share of the most it takes",
			Query: "sum(pg_stat_database_numbackends{$database}) / max(pg_settings_max_connections{$database})", Above: 0.8,
		},
		{
			Program: "redis_exporter", Selector: "redis", metric: "redis_memory_used_bytes",
			Name: "redis_memory", Description: "Memory of Redis, as a share of its limit",
			Query: "max(redis_memory_used_bytes{$redis} / (redis_memory_max_bytes{$redis} > 0))", Above: 0.9,
		},
	}
}
