// The second table: which protobuf field number is which JSON field, because kubectl's typed commands (`kubectl create …`)
// send protobuf. Read by reflection from the structs of k8s.io/api, whose tags have both.
package main

import (
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

var protobufGroups = map[string]bool{
	"v1": true, "apps/v1": true, "batch/v1": true, "rbac.authorization.k8s.io/v1": true, "networking.k8s.io/v1": true,
	"autoscaling/v1": true, "autoscaling/v2": true, "policy/v1": true, "coordination.k8s.io/v1": true,
	"discovery.k8s.io/v1": true, "storage.k8s.io/v1": true, "scheduling.k8s.io/v1": true, "node.k8s.io/v1": true,
	"admissionregistration.k8s.io/v1": true, "certificates.k8s.io/v1": true, "authorization.k8s.io/v1": true,
	"authentication.k8s.io/v1": true,
}

type protobufTable struct {
	names map[reflect.Type]string
	lines []string
}

func writeProtobuf(path string) {
	table := &protobufTable{names: map[reflect.Type]string{}}
	var kinds []string
	for gvk, goType := range scheme.Scheme.AllKnownTypes() {
		version := gvk.GroupVersion().String()
		isList := strings.HasSuffix(gvk.Kind, "List")
		isMeta := strings.HasSuffix(goType.PkgPath(), "apimachinery/pkg/apis/meta/v1")
		if !protobufGroups[version] || isList || isMeta && !(version == "v1" && gvk.Kind == "DeleteOptions") {
			continue
		}
		kinds = append(kinds, fmt.Sprintf("kind %s %s %s", version, gvk.Kind, table.message(goType)))
	}
	sort.Strings(kinds)
	sort.Strings(table.lines)
	text := strings.Join(append(kinds, table.lines...), "\n") + "\n"
	check(os.WriteFile(path, []byte(text), 0o644))
}

func (t *protobufTable) message(goType reflect.Type) string {
	if name, known := t.names[goType]; known {
		return name
	}
	parts := strings.Split(goType.PkgPath(), "/")
	name := strings.Join(parts[len(parts)-2:], ".") + "." + goType.Name()
	t.names[goType] = name
	fields := []string{}
	for i := range goType.NumField() {
		if field := t.field(goType.Field(i)); field != "" {
			fields = append(fields, field)
		}
	}
	t.lines = append(t.lines, "type "+name+" "+strings.Join(fields, " "))
	return name
}

func (t *protobufTable) field(field reflect.StructField) string {
	tag := strings.Split(field.Tag.Get("protobuf"), ",")
	if len(tag) < 2 {
		return ""
	}
	name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
	if strings.Contains(options, "inline") {
		name = "^"
	}
	// gogo writes plain fields even when they are empty; JSON would leave these out.
	if strings.Contains(options, "omitempty") && field.Type.Kind() != reflect.Pointer {
		name += "?"
	}
	return tag[1] + "=" + name + ":" + t.kind(field.Type)
}

func (t *protobufTable) kind(goType reflect.Type) string {
	switch goType {
	case reflect.TypeFor[metav1.Time]():
		return "T"
	case reflect.TypeFor[metav1.MicroTime]():
		return "M"
	case reflect.TypeFor[resource.Quantity]():
		return "Q"
	case reflect.TypeFor[intstr.IntOrString]():
		return "I"
	case reflect.TypeFor[runtime.RawExtension](), reflect.TypeFor[metav1.FieldsV1]():
		return "J"
	}
	switch goType.Kind() {
	case reflect.Pointer:
		return t.kind(goType.Elem())
	case reflect.Slice:
		switch {
		case goType.Elem().Kind() == reflect.Uint8:
			return "y"
		case goType.Name() != "":
			// A named list is a message with one field in protobuf.
			return "L" + t.kind(goType.Elem())
		}
		return "[]" + t.kind(goType.Elem())
	case reflect.Map:
		return "{}" + t.kind(goType.Elem())
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "b"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "i"
	case reflect.Float64:
		return "d"
	case reflect.Struct:
		return t.message(goType)
	}
	panic("unexpected type " + goType.String())
}
