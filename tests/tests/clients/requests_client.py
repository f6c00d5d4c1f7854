# requests: `METHOD URL`s to answers, each a line `[status, body]`. All over one session.
import json, sys, requests

with requests.Session() as session:
    for words in sys.argv[2:]:
        method, url = words.split()
        answer = session.request(method, url, data=sys.argv[1] if method == "POST" else None, timeout=30)
        print(json.dumps([answer.status_code, answer.json()]))
