"""Questions are chosen, asked, scored and shown; every measure of training's commands is here."""
