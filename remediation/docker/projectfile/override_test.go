package projectfile

import "testing"

func TestOverrideIsSetAndPutBackToTheByte(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"no file", "", overrideHead + "services: # backout\n  web: # backout\n    environment: # backout\n      FLAG: \"0\" # backout\n"},
		{"no services", "version: \"3.8\"\n", "version: \"3.8\"\nservices: # backout\n  web: # backout\n    environment: # backout\n      FLAG: \"0\" # backout\n"},
		{"another service", "services:\n  # the database\n  db:\n    image: x\n", "services:\n  # the database\n  web: # backout\n    environment: # backout\n      FLAG: \"0\" # backout\n  db:\n    image: x\n"},
		{"service without environment", "services:\n    web:\n        image: x # y\n", "services:\n    web:\n        environment: # backout\n          FLAG: \"0\" # backout\n        image: x # y\n"},
		{"mapping", "services:\n  web:\n    environment:\n      A: ü # x\n", "services:\n  web:\n    environment:\n      FLAG: \"0\" # backout\n      A: ü # x\n"},
		{"list", "services:\n  web:\n    environment:\n    - A=1\n", "services:\n  web:\n    environment:\n    - \"FLAG=0\" # backout\n    - A=1\n"},
		{"value in a mapping", "services:\n  web:\n    environment: {A: b, FLAG: '1'} # c\n", "services:\n  web:\n    environment: {A: b, FLAG: \"0\"} # c\n"},
		{"plain value", "services:\n  web:\n    environment:\n      FLAG: 1  # c\n", "services:\n  web:\n    environment:\n      FLAG: \"0\"  # c\n"},
		{"value in a list", "services:\n  web:\n    environment:\n      - FLAG=$X\n", "services:\n  web:\n    environment:\n      - \"FLAG=0\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, err := ReadOverride([]byte(c.file), "web", "FLAG")
			if err != nil {
				t.Fatal(err)
			}
			got, err := SetOverride([]byte(c.file), "web", "FLAG", "0")
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("set:\n got %q\nwant %q", got, c.want)
			}
			back, err := PutOverride(got, "web", "FLAG", before)
			if err != nil {
				t.Fatal(err)
			}
			if string(back) != c.file {
				t.Errorf("put back:\n got %q\nwant %q", back, c.file)
			}
		})
	}
}

func TestTwoFlagsInOneOverrideGoOneByOne(t *testing.T) {
	absent := Entry{State: entryAbsent}
	a, err := SetOverride(nil, "web", "A", "0")
	if err != nil {
		t.Fatal(err)
	}
	both, err := SetOverride(a, "web", "B", "0")
	if err != nil {
		t.Fatal(err)
	}
	onlyB, err := PutOverride(both, "web", "A", absent)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckOverride(onlyB, "web", "B", "0"); err != nil {
		t.Errorf("%s: %v", onlyB, err)
	}
	none, err := PutOverride(onlyB, "web", "B", absent)
	if err != nil || none != nil {
		t.Errorf("left %q, %v", none, err)
	}
}

func TestOverrideRefusesWhatItCannotEditSafely(t *testing.T) {
	for _, file := range []string{
		"services: {}\n", "services:\n  web:\n", "services:\n  web:\n    environment:\n", "services:\n  web: {image: x}\n",
		"x: &e {FLAG: '1'}\nservices:\n  web:\n    environment: *e\n", "services:\n  web:\n    environment:\n      FLAG: |\n        1\n", "services: [\n", "version: '3'",
	} {
		if out, err := SetOverride([]byte(file), "web", "FLAG", "0"); err == nil {
			t.Errorf("%q became %q", file, out)
		}
	}
}
