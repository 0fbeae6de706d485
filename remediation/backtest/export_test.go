package backtest

// Plain returns options with which each question of the engine is asked of Prometheus.
func Plain(o Options) Options {
	o.plain = true
	return o
}
