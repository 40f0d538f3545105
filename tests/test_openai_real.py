"""The endpoint under /v1 over the real embedded model: words, a picture and speech, by OpenAI's own client."""

import base64

from tests.conftest import EXAMPLES
from tests.test_openai import ask, client_of, data_url, page_of, shown, told, words
from vlm import Assistant
from vlm.serving.serving import Serving


def test_the_real_model_is_asked_in_words_pictures_and_speech(assistant: Assistant) -> None:
    with page_of(Serving(assistant)) as address:
        client = client_of(address)
        assert "Paris" in told(client, words("What is the capital of France?"), max_tokens=24)
        picture_of = shown(data_url((EXAMPLES / "stop-sign.jpg").read_bytes(), "image/jpeg"), "What is this?")
        answer = ask(client, picture_of, max_tokens=24)
        assert (answer.model, answer.usage.prompt_tokens > 25) == ("embedded", True)
        sound = base64.b64encode((EXAMPLES / "what-is-the-capital-of-France.wav").read_bytes()).decode()
        audio = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
        assert "Paris" in told(client, [{"role": "user", "content": [audio]}], max_tokens=24)
        with (EXAMPLES / "why-is-the-sky-blue.wav").open("rb") as recording:
            heard = client.audio.transcriptions.create(file=recording, model="whisper-1").text
        assert "sky" in heard
