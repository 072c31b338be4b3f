"""Runs a prompt file on a ComfyUI server and saves what it made: client.py edit.json [http://127.0.0.1:8188]"""

import json
import sys
import time
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen, urlretrieve

file, server = sys.argv[1], (sys.argv[2:] or ["http://127.0.0.1:8188"])[0]
body = json.dumps({"prompt": json.loads(Path(file).read_text(encoding="utf-8"))}).encode()
queued = json.load(urlopen(f"{server}/prompt", body))["prompt_id"]
while not (runs := json.load(urlopen(f"{server}/history/{queued}"))):
    time.sleep(1)
for output in runs[queued]["outputs"].values():
    print(*output.get("text", []))
    for image in output.get("images", []):
        urlretrieve(f"{server}/view?{urlencode(image)}", image["filename"])
sys.exit(runs[queued]["status"]["status_str"] != "success")
