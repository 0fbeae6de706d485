// Command kubelab is a Kubernetes control plane in one process, for tests: etcd, the API server with RBAC, and of the
// controllers those for deployments, replica sets, stateful sets, namespaces, service accounts, the root certificate's
// config map, and garbage. There is no scheduler and no kubelet: package deploy/kube has the node.
//
//	kubelab DIR
//
// Keys, certificates, the admin's kubeconfig, the ports and etcd's data are in DIR: a start with the DIR of a process that
// was killed is the same cluster at the same address. It listens on 127.0.0.1 only. It prints "ready" and ends on SIGTERM.
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/statefulset"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kubelab DIR")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(klog.NewContext(ctx, klog.Background()), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "kubelab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) error {
	kept, err := remember(dir)
	if err != nil {
		return err
	}
	etcd, err := startEtcd(dir, kept)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- serve(ctx, dir, etcd, kept) }()
	config := &rest.Config{Host: local("https", kept.Port).String(), BearerToken: kept.Token, QPS: 200, Burst: 400}
	config.CAFile = filepath.Join(dir, "certs", "apiserver.crt")
	if err := answers(ctx, config, served, "/readyz"); err != nil {
		return err
	}
	ca, err := os.ReadFile(config.CAFile)
	if err != nil {
		return err
	}
	if err := control(ctx, config, ca); err != nil {
		return err
	}
	if err := answers(ctx, config, served, "/api/v1/namespaces/default/serviceaccounts/default"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "kubeconfig"), kubeconfig(config.Host, kept.Token, ca), 0o600); err != nil {
		return err
	}
	fmt.Println("ready")
	select {
	case <-ctx.Done():
		return nil // etcd's data survives an end at any time
	case err := <-served:
		return err
	}
}

// identity is what a cluster keeps when its process ends.
type identity struct {
	Token                string // the admin's
	Port, Client, Server int    // the API server's, and etcd's two
}

// remember returns the identity in dir, and makes one if dir is new.
func remember(dir string) (identity, error) {
	var kept identity
	path := filepath.Join(dir, "identity.json")
	raw, err := os.ReadFile(path)
	if err == nil {
		return kept, json.Unmarshal(raw, &kept)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return kept, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return kept, err
	}
	kept.Token = rand.Text()
	for _, p := range []*int{&kept.Port, &kept.Client, &kept.Server} {
		if *p, err = freePort(); err != nil {
			return kept, err
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return kept, err
	}
	raw, err = json.Marshal(kept)
	if err != nil {
		return kept, err
	}
	return kept, errors.Join(
		os.WriteFile(filepath.Join(dir, "sa.key"), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600),
		os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(kept.Token+`,admin,admin,"system:masters"`+"\n"), 0o600),
		os.WriteFile(path, raw, 0o600))
}

// freePort returns a port below the kernel's ephemeral ones, so that no outgoing connection takes it while the process is
// down.
func freePort() (int, error) {
	for range 100 {
		n, err := rand.Int(rand.Reader, big.NewInt(12000))
		if err != nil {
			return 0, err
		}
		port := 20000 + int(n.Int64())
		l, err := net.Listen("tcp", local("", port).Host)
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port between 20000 and 31999")
}

func local(scheme string, port int) *url.URL {
	return &url.URL{Scheme: scheme, Host: fmt.Sprintf("127.0.0.1:%d", port)}
}

// startEtcd never waits for the disk: its data survives the end of the process, not of the machine.
func startEtcd(dir string, kept identity) (string, error) {
	c := embed.NewConfig()
	c.Dir, c.LogLevel, c.UnsafeNoFsync = filepath.Join(dir, "etcd"), "error", true
	client, server := *local("http", kept.Client), *local("http", kept.Server)
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{server}, []url.URL{server}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		return "", fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-e.Server.ReadyNotify():
		return client.String(), nil
	case err := <-e.Err():
		return "", fmt.Errorf("start etcd: %w", err)
	}
}

// serve runs the API server until ctx ends. An error is never nil before that.
func serve(ctx context.Context, dir, etcd string, kept identity) error {
	key := filepath.Join(dir, "sa.key")
	cmd := app.NewAPIServerCommand()
	cmd.SetArgs([]string{
		"--etcd-servers=" + etcd, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", kept.Port), "--external-hostname=127.0.0.1",
		"--cert-dir=" + filepath.Join(dir, "certs"), "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/24",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
		"--authorization-mode=RBAC", "--token-auth-file=" + filepath.Join(dir, "tokens.csv"), "--profiling=false", "-v=0",
	})
	if err := cmd.ExecuteContext(ctx); err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	return errors.New("API server: ended")
}

// answers waits until a path is answered with 200.
func answers(ctx context.Context, config *rest.Config, served <-chan error, path string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	last := errors.New("not asked yet")
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-served:
			return err
		case <-limit:
			return fmt.Errorf("%s is not ready: %w", path, last)
		case <-tick.C:
			if last = ask(ctx, config, path); last == nil {
				return nil
			}
		}
	}
}

// ask makes a new client each time: the certificate is written while the API server starts.
func ask(ctx context.Context, config *rest.Config, path string) error {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// control starts the controllers.
func control(ctx context.Context, config *rest.Config, ca []byte) error {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	informed := informers.NewSharedInformerFactory(kube, 0)
	apps, core := informed.Apps().V1(), informed.Core().V1()
	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), core.Pods(), kube)
	if err != nil {
		return err
	}
	replicaSets := replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), core.Pods(), kube, replicaset.BurstReplicas)
	statefulSets := statefulset.NewStatefulSetController(ctx, core.Pods(), apps.StatefulSets(), core.PersistentVolumeClaims(), apps.ControllerRevisions(), kube)
	namespaces := namespace.NewNamespaceController(ctx, kube, meta, kube.Discovery().ServerPreferredNamespacedResources, core.Namespaces(), time.Minute, corev1.FinalizerKubernetes)
	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(), core.Namespaces(), kube, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return err
	}
	roots, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), kube, ca)
	if err != nil {
		return err
	}
	started := make(chan struct{})
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))
	all := informerfactory.NewInformerFactory(informed, metadatainformer.NewSharedInformerFactory(meta, 0))
	garbage, err := garbagecollector.NewGarbageCollector(ctx, kube, meta, mapper, garbagecollector.DefaultIgnoredResources(), all, started)
	if err != nil {
		return err
	}
	informed.Start(ctx.Done())
	close(started)
	go deployments.Run(ctx, 5)
	go replicaSets.Run(ctx, 5)
	go statefulSets.Run(ctx, 5)
	go namespaces.Run(ctx, 5)
	go accounts.Run(ctx, 1)
	go roots.Run(ctx, 1)
	go garbage.Run(ctx, 5, 30*time.Second)
	go garbage.Sync(ctx, disco, 30*time.Second)
	return nil
}

// kubeconfig is the admin's.
func kubeconfig(server, token string, ca []byte) []byte {
	return []byte(strings.NewReplacer("SERVER", server, "TOKEN", token, "CA", base64.StdEncoding.EncodeToString(ca)).Replace(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "SERVER", certificate-authority-data: CA}}]
users: [{name: admin, user: {token: "TOKEN"}}]
contexts: [{name: lab, context: {cluster: lab, user: admin, namespace: default}}]
current-context: lab
`))
}
