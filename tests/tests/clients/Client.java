// java.net.http with its defaults (it asks for HTTP/2 by an upgrade, on dual-stack sockets), as requests_client.py.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

class Client {
    public static void main(String[] words) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int i = 1; i < words.length; i++) {
            var asked = words[i].split(" ");
            var body = asked[0].equals("POST") ? BodyPublishers.ofString(words[0]) : BodyPublishers.noBody();
            var request = HttpRequest.newBuilder(URI.create(asked[1])).method(asked[0], body).build();
            var answer = client.send(request, BodyHandlers.ofString());
            System.out.println("[" + answer.statusCode() + ", " + answer.body() + "]");
        }
    }
}
