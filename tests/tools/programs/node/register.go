package main

import (
	"context"
	"log"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// The node-lifecycle controller calls a node dead whose condition is older than 40 s.
const heartbeat = 10 * time.Second

func register(ctx context.Context, client kubernetes.Interface, name string, port int) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
	_, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return err
	}
	return writeStatus(ctx, client, name, func(status *corev1.NodeStatus) {
		status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
		status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
		room := corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("4"),
			corev1.ResourceMemory: resource.MustParse("8Gi"),
			corev1.ResourcePods:   resource.MustParse("110"),
		}
		status.Capacity, status.Allocatable = room, room
	})
}

func stayReady(ctx context.Context, client kubernetes.Interface, name string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(heartbeat):
			if err := writeStatus(ctx, client, name, func(*corev1.NodeStatus) {}); err != nil {
				log.Printf("heartbeat: %v", err)
			}
		}
	}
}

func writeStatus(ctx context.Context, client kubernetes.Interface, name string, change func(*corev1.NodeStatus)) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	change(&node.Status)
	now := metav1.Now()
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: now, LastTransitionTime: now,
	}}
	_, err = client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}
