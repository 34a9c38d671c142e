// Plays a node without containers: what a kubelet is to an API server, with a local process for each container.
//
// It creates a Node that reports 127.0.0.1 and its own port, sets the pods that are bound to it to Running, and serves what an API
// server asks a kubelet for: logs, exec, attach and port-forward, over HTTPS and HTTP/1.1. A container with a command is that command,
// run in a directory of its own; one without does nothing. Port-forward reaches ports of 127.0.0.1.
//
// Not a kubelet: no isolation, no images, no probes, no restarts, no probing of who asks. For tests on loopback only.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig of a user who may write nodes and pods")
	name := flag.String("name", "node", "name of the Node")
	directory := flag.String("dir", "", "where the containers' directories are made")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *kubeconfig, *name, *directory); err != nil {
		log.Fatalf("node %s: %v", *name, err)
	}
}

func run(ctx context.Context, kubeconfig, name, directory string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	pods := newPods(client, directory)
	port, err := serve(pods)
	if err != nil {
		return err
	}
	if err := register(ctx, client, name, port); err != nil {
		return err
	}
	go stayReady(ctx, client, name)
	log.Printf("node %s serves on 127.0.0.1:%d", name, port)
	pods.follow(ctx, name)
	pods.end()
	return nil
}
