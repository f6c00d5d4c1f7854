// Go's net/http with its default client, as requests_client.py.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	for _, words := range os.Args[2:] {
		method, url, _ := strings.Cut(words, " ")
		var body io.Reader
		if method == "POST" {
			body = strings.NewReader(os.Args[1])
		}
		request, err := http.NewRequest(method, url, body)
		if err != nil {
			log.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			log.Fatal(err)
		}
		answer.Body.Close()
		fmt.Printf("[%d, %s]\n", answer.StatusCode, text)
	}
}
