"""An HTTP server for a cascade (extra `serve`).

| file | holds |
|---|---|
| `image_request.py` | what one request asks for, and the events that answer it |
| `waiting_images.py` | the queue: fair between clients, bounded |
| `prompt_encodings.py` | encodings of prompts that come again |
| `batches.py`, `spans.py` | a batch on the devices: begun, made in spans of steps, handed on |
| `warming.py` | compiles all programs before the first request |
| `engine.py` | the one thread that owns the devices |
| `hosts.py` | several hosts as one server |
| `settings.py`, `fields.py`, `uploads.py` | limits; fields of a body; files in a form |
| `answers.py`, `metadata.py` | images as an answer or as events; what a PNG carries |
| `access.py`, `errors.py` | who may ask; refusals in OpenAI's shape |
| `api.py`, `openapi.py`, `metrics.py` | the endpoints, their description, figures |
| `server.py`, `connections.py` | socket, signals, log; connections that are too slow |
| `page/` | the web page: HTML, CSS and JavaScript modules, as they are |
"""
