// An older kubectl than the one in ../kubernetes, so that the tests have two. The same program as k8s.io/kubernetes/cmd/kubectl, from the
// published library instead of the whole of Kubernetes.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"

	// Importing it registers what reads credentials of plugins.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
