"""Ask from the shell: python -m vlm "What is this?" --image cat.jpg

Where the first word is `search`, `classify` or `feedback`, it is one of the commands in vlm/commands.py."""

import argparse
import sys
from dataclasses import replace

from vlm import load_assistant
from vlm.commands import COMMANDS, USAGE
from vlm.terminal import command, to_json

SETTINGS = ("max_new_tokens", "temperature", "seed", "style")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m vlm",
        description="Ask about pictures, by typing or speaking.",
        epilog=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", nargs="?", default="", help="the question; may be left out with --audio")
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="a picture; may be repeated"
    )
    parser.add_argument("--audio", metavar="FILE", help="a spoken question")
    parser.add_argument("--preset", default="embedded", help="a preset's name or a YAML file")
    parser.add_argument("--adapter", help="a shipped adapter, an adapter folder, or user/name on the hub")
    parser.add_argument("--max-tokens", type=int, dest="max_new_tokens", help="longest answer, in tokens")
    parser.add_argument("--temperature", type=float, help="0: the likeliest words")
    parser.add_argument("--seed", type=int, help="another seed draws another answer, above temperature 0")
    parser.add_argument("--style", choices=["full", "keywords"], help="whole sentences or keywords")
    parser.add_argument("--json", action="store_true", help="print the whole trace as JSON")
    arguments, others = parser.parse_known_args()
    if others:
        known = f"A question stands in quotation marks; the commands are {', '.join(COMMANDS)}."
        parser.error(f"unrecognized arguments: {' '.join(others)}. {known}")
    if not (arguments.question or arguments.audio):
        parser.error('give a question, such as: python -m vlm "What is this?" --image FILE')
    return arguments


@command("vlm")
def main() -> None:
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        COMMANDS[sys.argv[1]](sys.argv[2:])
        return
    arguments = parse_arguments()
    assistant = load_assistant(arguments.preset, arguments.adapter)
    chosen = {
        name: value for name, value in vars(arguments).items() if name in SETTINGS and value is not None
    }
    settings = replace(assistant.settings, **chosen)
    if arguments.json:
        answer = assistant.answer(arguments.question, arguments.image, arguments.audio, settings=settings)
        print(to_json(answer.to_dict()))
        return
    printed = ""
    for answer in assistant.stream(arguments.question, arguments.image, arguments.audio, settings=settings):
        # a draft may still be rewritten, so only text that stays is printed as it comes
        if answer.stage == "done" or (answer.route == "text" and settings.style == "full"):
            text = answer.text.strip()
            print(text.removeprefix(printed), end="", flush=True)
            printed = text
    print()


if __name__ == "__main__":
    main()
