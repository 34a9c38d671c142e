package main

import (
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// What a request for logs asks for; the names are PodLogOptions'.
type logOptions struct {
	follow, timestamps bool
	tail, limit        int
	since              time.Time
}

func readLogOptions(query url.Values) (logOptions, error) {
	options := logOptions{follow: query.Get("follow") == "true", timestamps: query.Get("timestamps") == "true", tail: -1, limit: -1}
	for name, target := range map[string]*int{"tailLines": &options.tail, "limitBytes": &options.limit} {
		if text := query.Get(name); text != "" {
			number, err := strconv.Atoi(text)
			if err != nil {
				return options, err
			}
			*target = number
		}
	}
	if text := query.Get("sinceSeconds"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil {
			return options, err
		}
		options.since = time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	if text := query.Get("sinceTime"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return options, err
		}
		options.since = since
	}
	return options, nil
}

func (p *pods) serveLogs(response http.ResponseWriter, request *http.Request) {
	found, err := p.find(request.PathValue("namespace"), request.PathValue("pod"), request.PathValue("container"))
	if err != nil {
		http.Error(response, err.Error(), http.StatusNotFound)
		return
	}
	query := request.URL.Query()
	if query.Get("previous") == "true" {
		http.Error(response, "previous terminated container not found", http.StatusBadRequest)
		return
	}
	options, err := readLogOptions(query)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	response.Header().Set("Content-Type", "text/plain")
	response.WriteHeader(http.StatusOK)
	found.log.send(response, request, options)
}

func (o *output) send(response http.ResponseWriter, request *http.Request, options logOptions) {
	first, _, _ := o.from(0)
	number := 0
	if options.tail >= 0 {
		number = max(0, len(first)-options.tail)
	}
	flusher := http.NewResponseController(response)
	for {
		lines, more, changed := o.from(number)
		number += len(lines)
		for _, line := range lines {
			if !options.write(response, line) {
				return
			}
		}
		_ = flusher.Flush()
		if !options.follow || !more {
			return
		}
		select {
		case <-request.Context().Done():
			return
		case <-changed:
		}
	}
}

// Writes a line that is asked for; says whether the answer goes on.
func (o *logOptions) write(response http.ResponseWriter, line line) bool {
	if line.time.Before(o.since) {
		return true
	}
	text := line.text
	if o.timestamps {
		text = line.time.UTC().Format(time.RFC3339Nano) + " " + text
	}
	if o.limit >= 0 {
		text = text[:min(len(text), o.limit)]
		o.limit -= len(text)
	}
	_, err := response.Write([]byte(text))
	return err == nil && o.limit != 0
}
