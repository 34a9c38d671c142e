// A client-go program as people write them: what a controller, a dashboard or a script does to an API server, for the tests of proxying.
//
//	client informer   prints each change of the namespace's ConfigMaps, for ever: `ADDED name`, `UPDATED name`, `DELETED name`
//	client watches    keeps --count watches open and prints `all N have seen NAME` for each ConfigMap that every one of them has seen
//	client list       lists the namespace's ConfigMaps in one request and prints `N items, B bytes of data`
//	client exec       runs `cat` in --pod and sends it its own input, by SPDY, and by websocket with --websocket
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
)

var (
	kubeconfig = flag.String("kubeconfig", "", "kubeconfig file")
	server     = flag.String("server", "", "another server than the kubeconfig's")
	namespace  = flag.String("namespace", "default", "namespace")
	count      = flag.Int("count", 1, "how many watches")
	pod        = flag.String("pod", "", "where to run a command")
	websocket  = flag.Bool("websocket", false, "websocket instead of SPDY")
)

func main() {
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags(*server, *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	config.QPS, config.Burst = 1000, 1000
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	programs := map[string]func(context.Context, *rest.Config, kubernetes.Interface) error{
		"informer": informer, "watches": watches, "list": list, "exec": exec,
	}
	run, known := programs[flag.Arg(0)]
	if !known {
		log.Fatalf("%q is none of informer, watches, list, exec", flag.Arg(0))
	}
	if err := run(context.Background(), config, client); err != nil {
		log.Fatal(err)
	}
}

func informer(ctx context.Context, _ *rest.Config, client kubernetes.Interface) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(*namespace))
	shared := factory.Core().V1().ConfigMaps().Informer()
	if err := shared.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		fmt.Printf("BROKEN %v\n", err)
	}); err != nil {
		return err
	}
	name := func(object any) string { return object.(metav1.Object).GetName() }
	_, err := shared.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { fmt.Println("ADDED", name(object)) },
		UpdateFunc: func(before, after any) {
			if before.(*corev1.ConfigMap).ResourceVersion != after.(*corev1.ConfigMap).ResourceVersion {
				fmt.Println("UPDATED", name(after))
			}
		},
		DeleteFunc: func(object any) {
			if unknown, is := object.(cache.DeletedFinalStateUnknown); is {
				object = unknown.Obj
			}
			fmt.Println("DELETED", name(object))
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), shared.HasSynced) {
		return ctx.Err()
	}
	fmt.Println("SYNCED")
	<-ctx.Done()
	return nil
}

// How many of the watches have seen each object.
type census struct {
	mutex sync.Mutex
	seen  map[string]int
}

func (c *census) add(name string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.seen[name]++
	if c.seen[name] == *count {
		fmt.Printf("all %d have seen %s\n", *count, name)
	}
}

func watches(ctx context.Context, _ *rest.Config, client kubernetes.Interface) error {
	census := census{seen: map[string]int{}}
	ends := make(chan error)
	for range *count {
		watch, err := client.CoreV1().ConfigMaps(*namespace).Watch(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		go func() {
			for event := range watch.ResultChan() {
				if object, is := event.Object.(*corev1.ConfigMap); is {
					census.add(object.Name)
				}
			}
			ends <- fmt.Errorf("a watch ended")
		}()
	}
	fmt.Printf("%d watches are open\n", *count)
	return <-ends
}

func list(ctx context.Context, config *rest.Config, client kubernetes.Interface) error {
	begin := time.Now()
	found, err := client.CoreV1().ConfigMaps(*namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	bytes := 0
	for _, item := range found.Items {
		for _, value := range item.Data {
			bytes += len(value)
		}
	}
	fmt.Printf("%d items, %d bytes of data\n", len(found.Items), bytes)
	log.Printf("it took %v", time.Since(begin))
	return nil
}

func exec(ctx context.Context, config *rest.Config, client kubernetes.Interface) error {
	request := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(*namespace).Name(*pod).SubResource("exec")
	request.VersionedParams(&corev1.PodExecOptions{Command: []string{"cat"}, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	var executor remotecommand.Executor
	var err error
	if *websocket {
		executor, err = remotecommand.NewWebSocketExecutor(config, http.MethodGet, request.URL().String())
	} else {
		executor, err = remotecommand.NewSPDYExecutor(config, http.MethodPost, request.URL())
	}
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
}
