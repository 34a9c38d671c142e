package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/kubelet/pkg/cri/streaming"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
	remote "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
)

// Serves a port of its own on loopback, in the background.
func serve(pods *pods) (int, error) {
	certificate, err := selfSigned()
	if err != nil {
		return 0, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	server := &http.Server{
		Handler:   routes(pods),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		// HTTP/1.1 only: API servers upgrade connections here.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	go func() { log.Fatal(server.ServeTLS(listener, "", "")) }()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func routes(pods *pods) http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", pods.serveLogs)
	for _, path := range []string{"{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"} {
		routes.HandleFunc("/exec/"+path, pods.serveExec)
		routes.HandleFunc("/attach/"+path, pods.serveAttach)
	}
	for _, path := range []string{"{namespace}/{pod}", "{namespace}/{pod}/{uid}"} {
		routes.HandleFunc("/portForward/"+path, servePortForward)
	}
	return routes
}

// How the streaming library names a container: it passes the name on without looking at it.
func (p *pods) named(name string) (*container, error) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%q is no container", name)
	}
	return p.find(parts[0], parts[1], parts[2])
}

func nameOf(request *http.Request) string {
	return key(request.PathValue("namespace"), request.PathValue("pod"), request.PathValue("container"))
}

func (p *pods) serveExec(response http.ResponseWriter, request *http.Request) {
	options, err := remote.NewOptions(request)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	defaults := streaming.DefaultConfig
	remote.ServeExec(response, request, p, nameOf(request), "", "", request.URL.Query()["command"], options,
		defaults.StreamIdleTimeout, defaults.StreamCreationTimeout, defaults.SupportedRemoteCommandProtocols)
}

func (p *pods) serveAttach(response http.ResponseWriter, request *http.Request) {
	options, err := remote.NewOptions(request)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	defaults := streaming.DefaultConfig
	remote.ServeAttach(response, request, p, nameOf(request), "", "", options,
		defaults.StreamIdleTimeout, defaults.StreamCreationTimeout, defaults.SupportedRemoteCommandProtocols)
}

func servePortForward(response http.ResponseWriter, request *http.Request) {
	options, err := portforward.NewV4Options(request)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	defaults := streaming.DefaultConfig
	portforward.ServePortForward(response, request, dialer{}, request.PathValue("pod"), "", options,
		defaults.StreamIdleTimeout, defaults.StreamCreationTimeout, defaults.SupportedPortForwardProtocols)
}

// ExecInContainer implements the library's Executor.
func (p *pods) ExecInContainer(_ context.Context, name string, _ types.UID, _ string, words []string, in io.Reader, out, errors io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	found, err := p.named(name)
	if err != nil {
		return err
	}
	return found.run(words, in, out, errors, tty, resize)
}

// AttachContainer implements the library's Attacher.
func (p *pods) AttachContainer(_ context.Context, name string, _ types.UID, _ string, in io.Reader, out, _ io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	found, err := p.named(name)
	if err != nil {
		return err
	}
	found.attach(in, out, resize)
	return nil
}

type dialer struct{}

// PortForward implements the library's PortForwarder.
func (dialer) PortForward(_ context.Context, _ string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	target, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer target.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(target, stream)
		_ = target.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, target)
	_ = stream.Close()
	<-sent
	return err
}

// API servers of the tests do not verify the certificates of nodes.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
