package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/deploy/kube"
)

// commandWithin bounds one command; some of them wait for what they asked for.
const commandWithin = 5 * time.Minute

// command runs one of backout's own commands against the stack's server, as a commander.
func (s *stack) command(ctx context.Context, args ...string) (string, error) {
	args = append(args, "--url="+s.url("backout"), "--token-file="+s.base().path("demo.token"))
	return s.run(ctx, args...)
}

// run runs one of backout's own commands.
func (s *stack) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.backout, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = kube.ChildAttributes()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("backout %s: %w: %s", args[0], err, out)
	}
	return string(out), nil
}

// generate has backout write the rules and Alertmanager's configuration for
// the demo's playbook, as it does for a real one.
func (s *stack) generate(ctx context.Context) error {
	args := append([]string{"rules", "generate", "--output=" + s.path("generated")}, s.playbooks()...)
	if _, err := s.run(ctx, args...); err != nil {
		return err
	}
	return s.adapt(s.path("generated", "deploy", "alertmanager.yml"))
}

// adapt takes the generated Alertmanager configuration as it is, but for what
// is this stack's own: where backout listens and its token. Receivers that
// would tell people elsewhere tell nobody.
func (s *stack) adapt(generated string) error {
	text, err := os.ReadFile(generated)
	if err != nil {
		return err
	}
	var cfg map[string]any
	if err := yaml.Unmarshal(text, &cfg); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(generated), err)
	}
	delete(cfg, "global")
	delete(cfg, "templates")
	receivers, _ := cfg["receivers"].([]any)
	hooks := 0
	for i, r := range receivers {
		receiver, _ := r.(map[string]any)
		mine := map[string]any{"name": receiver["name"]}
		if list, ok := receiver["webhook_configs"].([]any); ok {
			for _, w := range list {
				hook, _ := w.(map[string]any)
				hook["url"] = s.url("backout") + "/api/v1/webhook/alertmanager"
				hook["http_config"] = map[string]any{"authorization": map[string]any{"credentials_file": s.path("am.token")}}
				hooks++
			}
			mine["webhook_configs"] = list
		}
		receivers[i] = mine
	}
	if hooks == 0 {
		return fmt.Errorf("%s: no receiver posts to backout", filepath.Base(generated))
	}
	if text, err = yaml.Marshal(cfg); err != nil {
		return err
	}
	return os.WriteFile(s.path("alertmanager.yml"), text, 0o600)
}
