package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// The containers that run here, by namespace/pod/container.
type pods struct {
	client    kubernetes.Interface
	directory string
	mutex     sync.Mutex
	running   map[string]*container
}

func newPods(client kubernetes.Interface, directory string) *pods {
	return &pods{client: client, directory: directory, running: map[string]*container{}}
}

// Runs what is bound to this node until the context ends.
func (p *pods) follow(ctx context.Context, node string) {
	source := cache.NewListWatchFromClient(p.client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll,
		fields.OneTermEqualSelector("spec.nodeName", node))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source,
		ObjectType:    &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { p.take(ctx, object.(*corev1.Pod)) },
			UpdateFunc: func(_, object any) { p.take(ctx, object.(*corev1.Pod)) },
			DeleteFunc: func(object any) { p.drop(object) },
		},
	})
	informer.RunWithContext(ctx)
}

func key(namespace, pod, name string) string { return namespace + "/" + pod + "/" + name }

func (p *pods) find(namespace, pod, name string) (*container, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if found := p.running[key(namespace, pod, name)]; found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("container %q not found in pod %q", name, namespace+"/"+pod)
}

// Starts a pod that is new, and gives up one that is to be deleted.
func (p *pods) take(ctx context.Context, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		p.stop(pod)
		now := int64(0)
		// Somebody else may have removed it already.
		_ = p.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		return
	}
	if pod.Status.Phase != corev1.PodPending {
		return
	}
	for _, spec := range pod.Spec.Containers {
		if err := p.start(pod, spec); err != nil {
			log.Printf("pod %s/%s: %v", pod.Namespace, pod.Name, err)
			return
		}
	}
	if err := p.report(ctx, pod); err != nil {
		log.Printf("pod %s/%s: %v", pod.Namespace, pod.Name, err)
	}
}

func (p *pods) start(pod *corev1.Pod, spec corev1.Container) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	name := key(pod.Namespace, pod.Name, spec.Name)
	if p.running[name] != nil {
		return nil
	}
	directory := filepath.Join(p.directory, pod.Namespace, pod.Name, spec.Name)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	started, err := startContainer(spec, directory)
	if err != nil {
		return err
	}
	p.running[name] = started
	return nil
}

// Says that the pod runs, without an address: an API server would dial it.
func (p *pods) report(ctx context.Context, pod *corev1.Pod) error {
	pod = pod.DeepCopy()
	now := metav1.Now()
	pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now
	pod.Status.ContainerStatuses = nil
	for _, spec := range pod.Spec.Containers {
		started := true
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: spec.Name, Image: spec.Image, Ready: true, Started: &started, ContainerID: "process://" + spec.Name,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	_, err := p.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

func (p *pods) drop(object any) {
	if unknown, is := object.(cache.DeletedFinalStateUnknown); is {
		object = unknown.Obj
	}
	if pod, is := object.(*corev1.Pod); is {
		p.stop(pod)
	}
}

func (p *pods) stop(pod *corev1.Pod) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, spec := range pod.Spec.Containers {
		name := key(pod.Namespace, pod.Name, spec.Name)
		if found := p.running[name]; found != nil {
			found.kill()
			delete(p.running, name)
		}
	}
}

func (p *pods) end() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, found := range p.running {
		found.kill()
	}
}
