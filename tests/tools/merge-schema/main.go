// Writes the sandbox's table of Kubernetes types, src/sandbox/fields/schema.txt, from the OpenAPI v3 documents of a
// Kubernetes source tree: field names, scalar kinds, list types and keys, atomic maps, key defaults, and the patch
// strategies of strategic merge patches. The structs of k8s.io/api say which fields are present even when empty.
//
// Usage: see README.md.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

var documents = []string{
	"api__v1", "apis__apps__v1", "apis__batch__v1", "apis__rbac.authorization.k8s.io__v1", "apis__networking.k8s.io__v1",
	"apis__apiextensions.k8s.io__v1", "apis__autoscaling__v1", "apis__autoscaling__v2", "apis__policy__v1",
	"apis__coordination.k8s.io__v1", "apis__discovery.k8s.io__v1", "apis__storage.k8s.io__v1", "apis__scheduling.k8s.io__v1",
	"apis__events.k8s.io__v1", "apis__admissionregistration.k8s.io__v1", "apis__node.k8s.io__v1",
}

type printer struct {
	schemas map[string]*spec.Schema
	types   map[string]schema.TypeDef
	present map[string]map[string]bool
	short   map[string]string
	done    map[string]bool
	queue   []string
	lines   []string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "protobuf" {
		writeProtobuf(os.Args[2])
		return
	}
	schemas := map[string]*spec.Schema{}
	for _, name := range documents {
		load(filepath.Join(os.Args[1], name+"_openapi.json"), schemas)
	}
	converted, err := schemaconv.ToSchemaFromOpenAPI(schemas, false)
	check(err)
	p := &printer{schemas: schemas, types: map[string]schema.TypeDef{}, present: presentFields(), short: map[string]string{}, done: map[string]bool{}}
	for _, t := range converted.Types {
		p.types[t.Name] = t
	}
	roots := p.roots()
	for len(p.queue) > 0 {
		next := p.queue[0]
		p.queue = p.queue[1:]
		p.define(next)
	}
	sort.Strings(roots)
	sort.Strings(p.lines)
	fmt.Println(strings.Join(append(roots, p.lines...), "\n"))
}

func load(path string, into map[string]*spec.Schema) {
	data, err := os.ReadFile(path)
	check(err)
	document := &spec3.OpenAPI{}
	check(json.Unmarshal(data, document))
	for name, s := range document.Components.Schemas {
		into[name] = s
	}
}

// roots lists the kinds, `kind apps/v1 Deployment Deployment`.
func (p *printer) roots() []string {
	var out, names []string
	for name := range p.schemas {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		gvks, _ := p.schemas[name].Extensions["x-kubernetes-group-version-kind"].([]interface{})
		if _, ok := p.schemas[name].Properties["metadata"]; !ok || len(gvks) != 1 {
			continue
		}
		gvk := gvks[0].(map[string]interface{})
		kind := gvk["kind"].(string)
		if _, ok := p.schemas[name].Properties["items"]; ok {
			continue
		}
		apiVersion := gvk["version"].(string)
		if group := gvk["group"].(string); group != "" {
			apiVersion = group + "/" + apiVersion
		}
		out = append(out, fmt.Sprintf("kind %s %s %s", apiVersion, kind, p.name(name)))
	}
	return out
}

// name shortens a model's name to its last part, with the group's version before it where that is not unique.
func (p *printer) name(full string) string {
	if short, ok := p.short[full]; ok {
		return short
	}
	parts := strings.Split(full, ".")
	short := parts[len(parts)-1]
	for other := range p.types {
		if other != full && strings.HasSuffix(other, "."+short) {
			short = strings.Join(parts[len(parts)-3:], ".")
			break
		}
	}
	p.short[full] = short
	p.queue = append(p.queue, full)
	return short
}

func (p *printer) define(full string) {
	if p.done[full] {
		return
	}
	p.done[full] = true
	atom := p.types[full].Atom
	if atom.Map == nil || len(atom.Map.Fields) == 0 {
		return
	}
	var fields []string
	for _, f := range atom.Map.Fields {
		fields = append(fields, p.field(full, f))
	}
	sort.Strings(fields)
	head := p.name(full)
	if atom.Map.ElementRelationship == schema.Atomic {
		head = "!" + head
	}
	p.lines = append(p.lines, "type "+head+" "+strings.Join(fields, " "))
}

func (p *printer) field(full string, f schema.StructField) string {
	out := f.Name
	if p.present[full][f.Name] {
		out += "^"
	}
	out += ":" + p.ref(f.Type)
	if f.Default != nil && p.isKey(full, f.Name) {
		text, err := json.Marshal(f.Default)
		check(err)
		out += "=" + string(text)
	}
	property := p.schemas[full].Properties[f.Name]
	strategy, _ := property.Extensions.GetString("x-kubernetes-patch-strategy")
	key, _ := property.Extensions.GetString("x-kubernetes-patch-merge-key")
	if strategy != "" {
		out += "~" + strategy
		if key != "" {
			out += "~" + key
		}
	}
	return out
}

// isKey tells whether some list names its items of this type by this field; only then its default matters.
func (p *printer) isKey(full, field string) bool {
	for _, t := range p.types {
		if t.Atom.Map == nil {
			continue
		}
		for _, f := range t.Atom.Map.Fields {
			list := f.Type.Inlined.List
			if list != nil && list.ElementType.NamedType != nil && *list.ElementType.NamedType == full && contains(list.Keys, field) {
				return true
			}
		}
	}
	return false
}

func (p *printer) ref(ref schema.TypeRef) string {
	if ref.NamedType != nil {
		return p.named(*ref.NamedType, ref.ElementRelationship)
	}
	return p.atom(ref.Inlined)
}

func (p *printer) named(name string, relationship *schema.ElementRelationship) string {
	switch name {
	case "__untyped_atomic_":
		return "?"
	case "__untyped_deduced_":
		return "*"
	}
	atom := p.types[name].Atom
	out := ""
	if atom.Map != nil && len(atom.Map.Fields) > 0 {
		out = p.name(name)
	} else {
		out = p.atom(atom)
	}
	if relationship != nil && *relationship == schema.Atomic && out != "?" {
		out = "!" + strings.TrimPrefix(out, "!")
	}
	return out
}

func (p *printer) atom(atom schema.Atom) string {
	switch {
	case atom.Scalar != nil && atom.List != nil && atom.Map.ElementRelationship == schema.Atomic:
		return "?"
	case atom.Scalar != nil && atom.List != nil:
		return "*"
	case atom.Scalar != nil:
		return map[schema.Scalar]string{"string": "s", "numeric": "n", "boolean": "b", "untyped": "u"}[*atom.Scalar]
	case atom.List != nil && atom.List.ElementRelationship == schema.Associative && len(atom.List.Keys) == 0:
		return "[=]" + p.ref(atom.List.ElementType)
	case atom.List != nil:
		return "[" + strings.Join(atom.List.Keys, ",") + "]" + p.ref(atom.List.ElementType)
	case atom.Map != nil && atom.Map.ElementRelationship == schema.Atomic:
		return "!{}" + p.ref(atom.Map.ElementType)
	case atom.Map != nil:
		return "{}" + p.ref(atom.Map.ElementType)
	}
	panic("a type that is nothing")
}

// presentFields finds the structs, lists, maps and pointers that Go's encoder writes even when they are empty or nil.
func presentFields() map[string]map[string]bool {
	out := map[string]map[string]bool{}
	s := runtime.NewScheme()
	check(scheme.AddToScheme(s))
	check(apiext.AddToScheme(s))
	for _, t := range s.AllKnownTypes() {
		visit(t, out)
	}
	return out
}

func visit(t reflect.Type, out map[string]map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		visit(t.Elem(), out)
		return
	case reflect.Struct:
	default:
		return
	}
	name := modelName(t)
	if _, ok := out[name]; ok {
		return
	}
	out[name] = map[string]bool{}
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		visit(f.Type, out)
		marshals := reflect.PointerTo(f.Type).Implements(reflect.TypeOf((*json.Marshaler)(nil)).Elem())
		named := tag[0] != "" && tag[0] != "-"
		if named && !contains(tag, "omitzero") && (f.Type.Kind() == reflect.Struct && !marshals || isNil(f.Type.Kind()) && !contains(tag, "omitempty")) {
			out[name][tag[0]] = true
		}
	}
}

func isNil(kind reflect.Kind) bool {
	return kind == reflect.Slice || kind == reflect.Map || kind == reflect.Pointer
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

func modelName(t reflect.Type) string {
	parts := strings.Split(t.PkgPath(), "/")
	domain := strings.Split(parts[0], ".")
	for i, j := 0, len(domain)-1; i < j; i, j = i+1, j-1 {
		domain[i], domain[j] = domain[j], domain[i]
	}
	return strings.Join(append(append(domain, parts[1:]...), t.Name()), ".")
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
