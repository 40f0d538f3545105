"""What people send: pictures and sound -> checked arrays, speech -> text."""
